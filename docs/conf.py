"""Settings of Sphinx: python -m sphinx -E -W docs docs/_build/html."""

import logging
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Where the tutorials run: a folder with links to what a clone has, so that they
# find no run of the user's and leave none.
SCRATCH = ROOT / "docs" / "_build" / "tutorials"
LINKED = ("run.py", "configs", "experiments", "seqrnn", "benchmarks")

project = "seqrnn"
copyright = "The seqrnn authors"
html_title = "seqrnn"
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

extensions = [
  "myst_nb",
  "sphinx.ext.autodoc",
  "sphinx.ext.linkcode",
  "sphinx.ext.napoleon",
  "docs.api",
  "docs.sources",
  "docs.mathml",
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

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # Seconds of a cell, on a busy machine.
nb_execution_show_tb = True
nb_merge_streams = True

# A kernel warns that it talks to this process without encryption, and fails
# when it passes on the output of processes at its end.
KERNEL = """
c = get_config()
c.IPKernelApp.log_level = "ERROR"
c.IPKernelApp.capture_fd_output = False
"""
logging.getLogger("traitlets").setLevel(logging.WARNING)


def prepare(_app):
  """Makes the folder of the tutorials, and their environment."""
  shutil.rmtree(SCRATCH, ignore_errors=True)
  SCRATCH.mkdir(parents=True)
  for name in LINKED:
    (SCRATCH / name).symlink_to(ROOT / name)
  os.environ["SEQRNN_TUTORIALS"] = str(SCRATCH)
  # The python of a tutorial's commands is this one; its figures are the CPU's.
  paths = str(Path(sys.executable).parent), os.environ["PATH"]
  os.environ["PATH"] = os.pathsep.join(paths)
  os.environ.update(JAX_PLATFORMS="cpu", COLUMNS="80")
  profile = SCRATCH / "ipython" / "profile_default"
  (profile / "startup").mkdir(parents=True)
  os.environ["IPYTHONDIR"] = str(profile.parent)
  (profile / "ipython_kernel_config.py").write_text(KERNEL)
  shutil.copy(ROOT / "docs" / "bash.py", profile / "startup")


def publish(app, error):
  """Copies the reports and playgrounds of the tutorials into the site."""
  if error or app.builder.format != "html":
    return
  for page in SCRATCH.glob("runs/*/*.html"):
    target = app.outdir / page.relative_to(SCRATCH)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(page, target)


def setup(app):
  app.connect("builder-inited", prepare)
  app.connect("build-finished", publish)
