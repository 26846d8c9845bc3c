"""How the documentation is built, by ``make docs``: nothing is fetched, then or when a page is read."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from anograd import __version__

project = "anograd"
author = "The anograd developers"
copyright = author
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "records",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/**/*.py", "auto_examples/**/*.ipynb"]
default_role = "literal"  # `name` in docstrings is code
smartquotes = False  # a default such as "auto" is typed with straight ones
nitpicky = True  # types of other packages are named in words, so that nothing needs to be looked up elsewhere
suppress_warnings = ["config.cache"]

# Markdown
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

# Documentation out of docstrings
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say the types in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the template lists them
numpydoc_class_members_toctree = False

# The examples are run by the tests, not here.
sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "plot_gallery": "False",
    "ignore_pattern": r"(minilm|topics)\.py$",  # what an example imports
    "default_thumb_file": str(Path(__file__).parent / "_static" / "thumb.svg"),
    "download_all_examples": False,
    "notebook_extensions": set(),
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

# Appearance
html_theme = "pydata_sphinx_theme"
html_title = "anograd"
html_static_path = ["_static"]
html_css_files = ["anograd.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "anograd"},
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "start": [], "methods": [], "changelog": [], "contributing": []}
