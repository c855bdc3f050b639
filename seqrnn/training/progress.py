"""The display of a training: a bar on a terminal or lines; TensorBoard."""

import math
import os
import re
import time
from collections import deque
from typing import TYPE_CHECKING

import jax
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  TextColumn,
  TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from seqrnn.errors import needs_package
from seqrnn.runtime import sharding
from seqrnn.runtime.console import console
from seqrnn.training.checkpoint import Position
from seqrnn.training.history import MetricsRow
from seqrnn.training.setup import Training

if TYPE_CHECKING:
  from tensorboardX import (  # pyright: ignore[reportMissingImports]
    SummaryWriter,
  )

_LINE_SECONDS = 30.0  # Between two lines where the output is not a terminal.
_BAR_SECONDS = 0.2  # The minimum time between two updates of the bar.


class Progress:
  """Shows loss and speed during training.

  It reads the loss of the step two before the newest, so the device always has
  another step queued while the host waits. At most two steps are pending, so a
  signal is handled within two steps.
  """

  def __init__(self, training: Training, position: Position):
    self._console = console(soft_wrap=True)
    self._bar = Bar(
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      TextColumn("left  {task.fields[figures]}"),
      console=self._console,
    )
    self._total, self._done = training.total_steps, position.step
    self._task = self._bar.add_task(
      "training", total=self._total, completed=self._done, figures=""
    )
    self._unit, self._in_bits = training.unit, training.experiment.in_bits
    self._position = position  # Training updates it.
    self._pending: deque[tuple[jax.Array, float]] = deque()
    self._targets = 0.0  # Of this lap.
    # When a first step of this lap had finished; the targets finished since.
    self._start: float | None = None
    self._finished = 0.0
    self._lap_time = self._line_time = time.monotonic()
    self._bar_time, self._writer = 0.0, None
    if training.config.train.tensorboard and sharding.is_first():
      self._writer = summary_writer()(
        str(training.workdir / "tensorboard"),
        # TensorBoard hides earlier records of the steps that are repeated.
        purge_step=position.evaluated + 1,
        # Otherwise two writers of the same second would share a file.
        filename_suffix=f".{os.getpid()}.{position.step}",
      )

  def __enter__(self) -> "Progress":
    if self._console.is_terminal:
      self._bar.start()
    return self

  def __exit__(self, *_):
    if self._writer is not None:
      self._writer.close()
    if self._console.is_terminal:
      self._bar.update(self._task, completed=self._done)
      self._bar.stop()

  def step(self, loss: jax.Array, targets: float) -> float | None:
    """Counts a step that was just dispatched.

    Returns:
      the loss of the step two before; None for the first two steps of a lap.
    """
    self._done += 1
    self._targets += targets
    self._pending.append((loss, targets))
    if len(self._pending) < 3:
      return None
    oldest, count = self._pending.popleft()
    finished_loss, now = float(oldest), time.monotonic()
    if self._start is None:  # This step may have been compiled.
      self._start, self._finished = now, 0.0
    else:
      self._finished += count
    self._show(finished_loss, now, now - self._start)
    return finished_loss

  def _show(self, loss: float, now: float, seconds: float):
    """Shows a loss and the rate in this lap, where they are due."""
    if now - self._bar_time < _BAR_SECONDS:
      return
    self._bar_time = now
    figures = f"loss {loss:.4f}"
    if self._in_bits:
      figures += f"  {loss / math.log(2):.3f} bits/{self._unit}"
    if seconds:
      figures += f"  {self._finished / seconds:,.0f} {self._unit}s/s"
    if self._console.is_terminal:
      if self._position.best < math.inf:
        figures += f"  best {self._position.best:.4f}"
      self._bar.update(self._task, completed=self._done, figures=figures)
    elif now - self._line_time > _LINE_SECONDS:
      self._line_time = now
      self.line(f"step {self._done} of {self._total}  {figures}")

  def lap(self) -> tuple[float, float]:
    """Starts a new lap; returns the seconds and targets of the last one."""
    now = time.monotonic()
    result = now - self._lap_time, self._targets
    self._lap_time, self._targets = now, 0.0
    self._start = None
    self._pending.clear()
    return result

  def line(self, text: str):
    """Prints a line; on a terminal, above the bar."""
    self._console.print(text, markup=False)

  def write_tensorboard(self, row: MetricsRow):
    """Writes a row of metrics.csv, if `train.tensorboard` is set."""
    if self._writer is None:
      return
    for name, value in row.items():
      if name != "step":
        tag = re.sub("^(train|validation)_", r"\1/", name)
        self._writer.add_scalar(tag, value, int(row["step"]))
    self._writer.flush()


def summary_writer() -> type["SummaryWriter"]:
  """Returns the class that writes files of TensorBoard.

  Raises:
    UserError: its package is missing.
  """
  with needs_package(
    "config.train.tensorboard=True", "tensorboardX", "tensorboard"
  ):
    from tensorboardX import SummaryWriter
  return SummaryWriter
