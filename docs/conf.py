"""Settings of Sphinx: python -m sphinx -W docs docs/_build/html."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "seqrnn"
copyright = "The seqrnn authors"
html_title = "seqrnn"
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False

extensions = [
  "myst_nb",
  "sphinx.ext.autodoc",
  "sphinx.ext.linkcode",
  "sphinx.ext.napoleon",
  "docs.sources",
  "docs.mathml",
]
exclude_patterns = ["_build"]
default_role = "code"  # Docstrings have `names` as Markdown has them.
highlight_language = "text"  # Indented blocks are mostly output.
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # The signature has them.
napoleon_custom_sections = [("Returns", "params_style")]

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_show_tb = True
