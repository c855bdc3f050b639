"""What TensorBoard shows of a training, in `workdir/tensorboard`."""

import os
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqrnn.errors import UserError
from seqrnn.experiment import Params

try:
  from tensorboardX import SummaryWriter
except ImportError:
  raise UserError(
    "train.tensorboard=True: needs the package tensorboardX: pip install"
    " 'seqrnn[tensorboard]'"
  ) from None

Write = Callable[[dict[str, Any], Params, str], None]


@contextmanager
def open_writer(workdir: Path, step: int) -> Iterator[Write]:
  """A function row of metrics.csv, parameters, sample -> None, that writes.

  What an earlier training wrote of later steps than `step` is shown no more.
  """
  with SummaryWriter(
    str(workdir / "tensorboard"),
    purge_step=step + 1,
    # Or two of the same second would have one file.
    filename_suffix=f".{os.getpid()}.{step}",
  ) as writer:

    def write(row: dict[str, Any], params: Params, sample: str):
      for name, value in row.items():
        tag = re.sub("^(train|validation)_", r"\1/", name)
        if name != "step":
          writer.add_scalar(tag, value, row["step"])
      if sample:  # Indented, Markdown leaves it as it is.
        writer.add_text("sample", textwrap.indent(sample, " " * 4), row["step"])
      for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        tag = jax.tree_util.keystr(path, simple=True, separator="/")
        writer.add_histogram(f"parameters/{tag}", np.asarray(leaf), row["step"])
      writer.flush()

    yield write
