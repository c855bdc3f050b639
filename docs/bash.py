"""The cell magic %%bash of the tutorials, when the build of the site runs them.

It shows output as a file would have it: whole, and without colours. A command
that fails ends the build. IPython runs this file when it starts.
"""

import os
import subprocess

from IPython.core.magic import register_cell_magic


@register_cell_magic
def bash(_line: str, cell: str):
  done = subprocess.run(
    ["bash", "-eo", "pipefail", "-c", cell],
    env={k: v for k, v in os.environ.items() if "FORCE" not in k},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  print(done.stdout, end="")
  done.check_returncode()
