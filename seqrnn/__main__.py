"""Starts the program, as `seqrnn`, `python -m seqrnn` and run.py do."""

import gc
import signal
import sys
from typing import NoReturn

# The packages of pyproject.toml, as they are imported.
_REQUIRED = (
  *("jax", "flax", "optax", "numpy", "orbax", "tensorstore", "absl"),
  *("ml_collections", "rich", "matplotlib", "pooch", "platformdirs"),
  *("filelock", "prometheus_client", "scipy", "jinja2"),
)


def start() -> NoReturn:
  """Runs the command line of this process, and ends the process."""
  from seqrnn.runtime import pages

  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the mode begins, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  pages.take_huge_pages()  # Before the imports, which the restart repeats.
  gc.disable()  # Collections during the imports find nothing.

  try:
    from seqrnn import program
    from seqrnn.runtime import launch

    launch.prepare()
    status = program.main(sys.argv)
  except ModuleNotFoundError as error:
    if error.name not in _REQUIRED:
      raise
    print(
      f"error: {sys.executable} has no package {error.name}; activate the"
      " environment of seqrnn, or install its packages with: pip install -e .",
      file=sys.stderr,
    )
    sys.exit(2)
  launch.end(status)


if __name__ == "__main__":
  start()
