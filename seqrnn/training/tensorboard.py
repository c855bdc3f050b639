"""Writes metrics, samples and histograms for TensorBoard."""

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
    " tensorboardX"
  ) from None

Write = Callable[[dict[str, Any], Params, str], None]


@contextmanager
def open_writer(workdir: Path, step: int) -> Iterator[Write]:
  """Yields a function that writes a row of metrics.csv, params and a sample.

  It writes to `workdir/tensorboard`. TensorBoard hides earlier records of steps
  after `step`, because the resumed run repeats them.
  """
  with SummaryWriter(
    str(workdir / "tensorboard"),
    purge_step=step + 1,
    # Otherwise two writers of the same second would share a file.
    filename_suffix=f".{os.getpid()}.{step}",
  ) as writer:

    def write(row: dict[str, Any], params: Params, sample: str):
      for name, value in row.items():
        tag = re.sub("^(train|validation)_", r"\1/", name)
        if name != "step":
          writer.add_scalar(tag, value, row["step"])
      if sample:  # Indented, so that Markdown keeps it as code.
        writer.add_text("sample", textwrap.indent(sample, " " * 4), row["step"])
      for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        tag = jax.tree_util.keystr(path, simple=True, separator="/")
        writer.add_histogram(f"parameters/{tag}", np.asarray(leaf), row["step"])
      writer.flush()

    yield write
