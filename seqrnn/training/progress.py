"""The progress of a training: a bar on a terminal, or lines in a file."""

import math
import time
from collections import deque

import jax
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  TextColumn,
  TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from seqrnn.runtime.console import console

_LINE_SECONDS = 30.0  # Between two lines where the output is not a terminal.
_BAR_SECONDS = 0.2  # The minimum time between two updates of the bar.
_RATE_SECONDS = 2.0  # The minimum time of the steps that a rate is of.


class Progress:
  """Shows loss and speed during training.

  It reads the loss of the step two before the newest, so the device always has
  another step queued while the host waits. At most two steps are pending, so a
  signal is handled within two steps.
  """

  def __init__(
    self, total_steps: int, done: int, unit: str, in_bits: bool, best: float
  ):
    """Begins.

    Args:
      total_steps: of the training.
      done: number of steps that are done.
      unit: the noun for a target.
      in_bits: whether the loss has bits.
      best: the lowest validation loss.
    """
    self._console = console(soft_wrap=True)
    self._bar = Bar(
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      TextColumn("left  {task.fields[figures]}"),
      console=self._console,
    )
    self.best = best  # The lowest validation loss; infinite before the first.
    self._task = self._bar.add_task(
      "training", total=total_steps, completed=done, figures=""
    )
    self._total = total_steps
    self._unit, self._in_bits = unit, in_bits
    self._done = done
    self._pending: deque[tuple[jax.Array, float | None]] = deque()
    self._targets = 0.0
    self._rate = ""  # The rate of the last steps, as text.
    self._finished, self._seconds = 0.0, 0.0  # Of the steps of the next rate.
    self._finish_time: float | None = None  # None: the next step is not timed.
    self._lap_time = self._line_time = time.monotonic()
    self._bar_time = 0.0
    self._shapes: list[list[tuple[int, ...]]] = []  # Of all batches so far.

  @property
  def live(self) -> bool:
    """Whether stdout is a terminal, which shows the bar."""
    return self._console.is_terminal

  def __enter__(self) -> "Progress":
    if self.live:
      self._bar.start()
    return self

  def __exit__(self, *_):
    if self.live:
      self._bar.update(self._task, completed=self._done)
      self._bar.stop()

  def shapes(self, shapes: list[tuple[int, ...]]):
    """Receives the shapes of the next batch; the step compiles if new."""
    if shapes in self._shapes:
      return
    self._shapes.append(shapes)
    # The pending steps may end while the host compiles.
    self._pending = deque((loss, None) for loss, _ in self._pending)

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
    oldest, timed = self._pending.popleft()
    finished = float(oldest)
    now = time.monotonic()
    if timed is not None and self._finish_time is not None:
      self._measure(timed, now - self._finish_time)
    self._finish_time = now
    self._show(finished, now)
    return finished

  def _measure(self, targets: float, seconds: float):
    """Adds a step to the next rate, which replaces the last one when due."""
    self._finished += targets
    self._seconds += seconds
    if self._seconds >= _RATE_SECONDS:
      rate = self._finished / self._seconds
      self._rate = f"  {rate:,.0f} {self._unit}s/s"
      self._finished = self._seconds = 0.0

  def _show(self, finished: float, now: float):
    if now - self._bar_time < _BAR_SECONDS:
      return
    self._bar_time = now
    bits = ""
    if self._in_bits:
      bits = f"  {finished / math.log(2):.3f} bits/{self._unit}"
    figures = f"loss {finished:.4f}{bits}{self._rate}"
    if self.live:
      best = "" if self.best == math.inf else f"  best {self.best:.4f}"
      figures = f"{figures}{best}"
      self._bar.update(self._task, completed=self._done, figures=figures)
    elif now - self._line_time > _LINE_SECONDS:
      self._line_time = now
      self.line(f"step {self._done} of {self._total}  {figures}")

  def lap(self) -> tuple[float, float]:
    """Starts a new lap; returns the seconds and targets of the last one."""
    now = time.monotonic()
    result = now - self._lap_time, self._targets
    self._lap_time, self._targets = now, 0.0
    self._finish_time = None
    self._pending.clear()
    return result

  def line(self, text: str):
    """Prints a line; on a terminal, above the bar."""
    self._console.print(text, markup=False)
