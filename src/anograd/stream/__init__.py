"""Scores of tables of any size, batch by batch, in memory that does not grow with them."""

from anograd.stream.batch import score_batch as score_batch
from anograd.stream.run import score_file as score_file
from anograd.stream.verdicts import Summary as Summary
