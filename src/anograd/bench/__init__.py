"""Detectors measured side by side: data sets, protocols, rivals, result lines and tables.

One run file names data sets, protocols, detectors and seeds; every combination of them is a cell, and every
cell that was measured is one line of JSON. Tables and pictures are made from such lines alone.
"""
