"""Settings of Sphinx: python -m sphinx -E -W docs docs/_build/html."""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Where `python -m docs.outputs` has left reports and playgrounds.
RUNS = ROOT / "docs" / "_build" / "tutorials"

project = "seqrnn"
copyright = "The seqrnn authors"
html_title = "seqrnn"
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

extensions = [
  "myst_parser",
  "sphinx.ext.autodoc",
  "sphinx.ext.linkcode",
  "sphinx.ext.napoleon",
  "docs.api",
  "docs.sources",
  "docs.mathml",
  "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "code"  # Docstrings have `names` as Markdown has them.
highlight_language = "text"  # Indented blocks are mostly output.
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "none"  # The signature has them.

FRAME = """
```{{raw}} html
<iframe src="../{0}" title="{0}"></iframe>
<p><a href="../{0}">This page in a window of its own</a></p>
```
"""


def show_pages(_app, _name, content):
  """Shows pages of runs where a comment `<!-- page: PATH -->` names them."""

  def frame(match):
    return FRAME.format(match[1]) if (RUNS / match[1]).exists() else ""

  content[0] = re.sub(r"<!-- page: (\S+) -->", frame, content[0])


def publish(app, error):
  """Copies the reports and playgrounds of the tutorials into the site."""
  if error or app.builder.format != "html":
    return
  for page in RUNS.glob("runs/*/*.html"):
    target = app.outdir / page.relative_to(RUNS)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(page, target)


def setup(app):
  app.connect("source-read", show_pages)
  app.connect("build-finished", publish)
