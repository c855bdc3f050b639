"""What a person sees of a training: a bar, or lines where there is none."""

import math
import time
from collections import deque

import jax
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  TextColumn,
  TimeRemainingColumn,
)
from rich.progress import (
  Progress as Bar,
)
from rich.text import Text

from seqrnn.experiment import Experiment

_LINE_SECONDS = 30.0  # Between two lines where the output is no terminal.


class Curve:
  """A loss over all steps, as one line of text.

  It keeps means of as many steps each, of more and more.
  """

  _MARKS = "▁▂▃▄▅▆▇█"
  _MOST = 32  # Marks; from half as many on.

  def __init__(self):
    self._means: list[float] = []
    self._size = 1  # Steps of a mean.
    self._sum, self._count = 0.0, 0  # Of the steps of the next one.

  def add(self, loss: float):
    self._sum += loss
    self._count += 1
    if self._count < self._size:
      return
    self._means.append(self._sum / self._size)
    self._sum, self._count = 0.0, 0
    if len(self._means) == self._MOST:
      pairs = zip(self._means[::2], self._means[1::2], strict=True)
      self._means = [(a + b) / 2 for a, b in pairs]
      self._size *= 2

  def __str__(self) -> str:
    finite = [mean for mean in self._means if math.isfinite(mean)]
    if not finite:
      return ""
    low, high = min(finite), max(finite)
    scale = (len(self._MARKS) - 1) / max(high - low, 1e-9)
    return "".join(self._MARKS[round((x - low) * scale)] for x in finite)


class _TwoLines(Bar):
  """A bar, and the figures below it."""

  def get_renderables(self):
    yield from super().get_renderables()
    for task in self.tasks:
      yield Text(task.fields["figures"], no_wrap=True, overflow="ellipsis")


class Progress:
  """Loss and speed as steps are made.

  It reads the loss of the step before the last one, which is done by then:
  the device always has one more step to work on. As a side effect no more
  than two steps are ever under way, so a signal is answered soon.
  """

  def __init__(
    self, total_steps: int, done: int, experiment: Experiment, best: float
  ):
    self._console = Console(soft_wrap=True, highlight=False)
    self._bar = _TwoLines(
      TextColumn("{task.description}"),
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      TextColumn("left"),
      console=self._console,
    )
    self.best = best  # Validation loss; infinite before there is one.
    self._curve = Curve()
    self._task = self._bar.add_task(
      "training", total=total_steps, completed=done, figures=""
    )
    self._total = total_steps
    self._unit, self._in_bits = experiment.unit, experiment.in_bits
    self._done = done
    self._losses: deque[jax.Array] = deque()
    self._targets = 0.0
    self._lap = self._told = time.monotonic()
    self._shown = 0.0

  @property
  def live(self) -> bool:
    """Whether there is a bar, on a terminal."""
    return self._console.is_terminal

  def __enter__(self) -> "Progress":
    if self.live:
      self._bar.start()
    return self

  def __exit__(self, *_):
    if self.live:
      self._bar.update(self._task, completed=self._done)
      self._bar.stop()

  def step(self, loss: jax.Array, targets: float) -> float | None:
    """Takes note of a step that was just started.

    Returns:
      the loss of the step before the last one; None where it is not known.
    """
    self._done += 1
    self._targets += targets
    self._losses.append(loss)
    if len(self._losses) < 3:
      return None
    finished = float(self._losses.popleft())
    self._curve.add(finished)
    self._show(finished)
    return finished

  def _show(self, finished: float):
    now = time.monotonic()
    if now - self._shown < 0.2:
      return
    self._shown = now
    rate = self._targets / max(now - self._lap, 1e-9)
    bits = ""
    if self._in_bits:
      bits = f"  {finished / math.log(2):.3f} bits/symbol"
    figures = f"loss {finished:.4f}{bits}  {rate:,.0f} {self._unit}s/s"
    if self.live:
      best = "" if self.best == math.inf else f"  best {self.best:.4f}"
      figures = f"{self._curve}  {figures}{best}"
      self._bar.update(self._task, completed=self._done, figures=figures)
    elif now - self._told > _LINE_SECONDS:
      self._told = now
      self.line(f"step {self._done} of {self._total}  {figures}")

  def lap(self) -> tuple[float, float]:
    """Seconds and targets since the last lap; a new one begins."""
    now = time.monotonic()
    result = now - self._lap, self._targets
    self._lap, self._targets = now, 0.0
    self._losses.clear()
    return result

  def line(self, text: str):
    """Prints a line, above the bar where there is one."""
    self._console.print(text, markup=False)
