"""Pictures of a search: losses, curves, fields, and their importance."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.ticker import (
  LogLocator,
  MaxNLocator,
  NullFormatter,
  PercentFormatter,
)
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from seqrnn.runtime import figures
from seqrnn.searching import importance
from seqrnn.training.history import read_rows

_LOSS = "best validation loss"
_MATTERS = 0.02  # Share in the variance from which a pair is shown.
_COLOURS = matplotlib.colormaps["viridis"]


def draw(
  trials: list[FrozenTrial],
  space: dict[str, Any],
  workdir: Path,
  folder: Callable[[int], Path],
) -> list[str]:
  """Draws the pictures that have enough trials; returns their file names.

  Args:
    trials: all trials of the search.
    space: the search space.
    workdir: the folder of the pictures.
    folder: number of a trial -> its workdir.
  """
  trials = [trial for trial in trials if trial.value is not None]
  finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
  if not finished:
    return []
  pictures = {
    "history.png": _history(trials),
    "curves.png": _curves(trials, folder),
    "parameters.png": _parameters(trials, space),
    "parallel.png": _parallel(trials, space),
    "importance.png": _importance(finished, space),
  }
  drawn = {name: found for name, found in pictures.items() if found is not None}
  for name, figure in drawn.items():
    figure.suptitle(figures.plain(workdir.name))
    figures.save(figure, workdir / f"search-{name}")
  return [f"search-{name}" for name in drawn]


def _value(trial: FrozenTrial) -> float:
  assert trial.value is not None, "only trials with a value are drawn"
  return trial.value


def _colour(scale: ScalarMappable, trial: FrozenTrial) -> Any:
  return _COLOURS(scale.norm(np.asarray(_value(trial))))


def _scale(trials: list[FrozenTrial]) -> ScalarMappable:
  """Colours of losses by rank, so that close losses differ too."""
  losses = np.unique([_value(trial) for trial in trials])
  if len(losses) == 1:
    losses = np.append(losses, losses + 1e-9)
  shares = np.linspace(0, 1, len(losses))
  to, back = (losses, shares), (shares, losses)
  norm = FuncNorm((lambda x: np.interp(x, *to), lambda x: np.interp(x, *back)))
  norm.vmin, norm.vmax = losses[0], losses[-1]
  return ScalarMappable(norm, _COLOURS)


def _bar(figure: Figure, axes: Axes, scale: ScalarMappable):
  """Draws the colour bar."""
  norm: Any = scale.norm
  ticks = norm.inverse(np.linspace(0, 1, 5))
  bar = figure.colorbar(scale, ax=axes, label=_LOSS, ticks=ticks)
  bar.ax.set_yticklabels([f"{loss:.4g}" for loss in ticks])
  bar.ax.minorticks_off()


def _limit(axes: Axes, losses: list[float]) -> float:
  """Limits the y axis where few losses are far above the others.

  Returns:
    the largest loss that is shown.
  """
  low, quarter = min(losses), float(np.quantile(losses, 0.75))
  high = min(max(losses), low + 4 * (quarter - low))
  margin = 0.05 * (high - low) or 0.01
  axes.set_ylim(low - margin, high + margin)
  return high


def _marks(axes: Axes, xs: list[float], trials: list[FrozenTrial]):
  """Draws a dot for each trial, filled if it finished, hollow if pruned.

  A trial outside the limits is an arrow at the upper edge.
  """
  high = _limit(axes, [_value(trial) for trial in trials])
  above = [i for i, t in enumerate(trials) if _value(t) > high]
  if above:
    axes.scatter(
      [xs[i] for i in above], [high] * len(above), marker="^", color="grey"
    )
  for state, face, label in (
    (TrialState.COMPLETE, "C0", "finished"),
    (TrialState.PRUNED, "none", "pruned"),
  ):
    chosen = [i for i, t in enumerate(trials) if t.state == state]
    if chosen:
      axes.scatter(
        [xs[i] for i in chosen],
        [_value(trials[i]) for i in chosen],
        s=24,
        facecolors=face,
        edgecolors="C0",
        label=label,
      )
  figures.grid(axes)


def _history(trials: list[FrozenTrial]) -> Figure:
  """The loss of each trial, and the best so far."""
  figure = figures.create(9, 3.5)
  axes = figure.add_subplot()
  _marks(axes, [trial.number for trial in trials], trials)
  losses = [
    _value(trial) if trial.state == TrialState.COMPLETE else math.inf
    for trial in trials
  ]
  axes.step(
    [trial.number for trial in trials],
    np.minimum.accumulate(losses),
    where="post",
    color="C1",
    label="best so far",
  )
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlabel("trial")
  axes.set_ylabel(_LOSS)
  axes.legend()
  return figure


def _curves(
  trials: list[FrozenTrial], folder: Callable[[int], Path]
) -> Figure | None:
  """The validation loss of each trial by step, coloured by its best."""
  figure = figures.create(9, 4)
  axes = figure.add_subplot()
  scale = _scale(trials)
  losses = []
  for trial in sorted(trials, key=_value, reverse=True):  # The best on top.
    rows = read_rows(folder(trial.number) / "metrics.csv", "validation_loss")
    values = [float(row["validation_loss"]) for row in rows]
    losses += values
    axes.plot(
      [int(row["step"]) for row in rows],
      values,
      color=_colour(scale, trial),
      marker=".",
      linestyle="-" if trial.state == TrialState.COMPLETE else ":",
    )
  _limit(axes, losses)
  axes.set_xlabel("step (dotted: pruned)")
  axes.set_ylabel("validation loss")
  figures.grid(axes)
  _bar(figure, axes, scale)
  return figure


def _places(axes: Axes, found: Any, values: list[Any], way: str) -> list[float]:
  """Sets the scale and the ticks of an axis; returns the values' places.

  Args:
    axes: that have the axis.
    found: the distribution of the values.
    values: of one field.
    way: "x" or "y".
  """
  if isinstance(found, CategoricalDistribution):
    names = [figures.plain(str(choice)) for choice in found.choices]
    ticks = {f"{way}ticks": range(len(names)), f"{way}ticklabels": names}
    axes.set(**ticks)
    return [found.to_internal_repr(value) for value in values]
  axis = axes.xaxis if way == "x" else axes.yaxis
  if found.log:
    axes.set(**{f"{way}scale": "log"})
    few = found.high < 200 * found.low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
  elif isinstance(found, IntDistribution):
    axis.set_major_locator(MaxNLocator(integer=True))
  return values


def _parameters(trials: list[FrozenTrial], space: dict[str, Any]) -> Figure:
  """Each field that is searched against the loss."""
  columns = min(len(space), 3)
  rows = math.ceil(len(space) / columns)
  figure = figures.create(4 * columns + 0.5, 3.2 * rows)
  for place, (name, found) in enumerate(space.items(), 1):
    axes = figure.add_subplot(rows, columns, place)
    values = [trial.params[name] for trial in trials]
    _marks(axes, _places(axes, found, values, "x"), trials)
    axes.set_xlabel(name)
    if place % columns == 1 or columns == 1:
      axes.set_ylabel(_LOSS)
  return figure


def _parallel(
  trials: list[FrozenTrial], space: dict[str, Any]
) -> Figure | None:
  """Each trial as a line through its values of all fields, coloured by loss."""
  if len(space) < 2:
    return None
  figure = figures.create(2.2 * len(space) + 2, 4)
  axes = figure.add_subplot()
  scale = _scale(trials)
  heights = []
  for place, (name, found) in enumerate(space.items()):
    values = [trial.params[name] for trial in trials]
    if isinstance(found, CategoricalDistribution):
      turn: Any = found.to_internal_repr
      ends = found.choices
      low, high = 0, max(len(ends) - 1, 1)
      labels = [figures.plain(str(choice)) for choice in ends]
    else:
      turn = math.log if found.log else float
      low, high = turn(found.low), turn(found.high)
      middle = (low + high) / 2
      ends = [found.low, math.exp(middle) if found.log else middle, found.high]
      labels = [f"{end:.3g}" for end in ends]
    heights.append([(turn(value) - low) / (high - low) for value in values])
    for end, label in zip(ends, labels, strict=True):
      height = (turn(end) - low) / (high - low)
      axes.plot(place, height, "_", color="black")
      axes.annotate(
        label,
        (place, height),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
      )
    axes.axvline(place, color="black", linewidth=0.8)
  for number in sorted(
    range(len(trials)), key=lambda i: _value(trials[i]), reverse=True
  ):
    axes.plot(
      [y[number] for y in heights],
      color=_colour(scale, trials[number]),
      alpha=0.8,
    )
  axes.set_xticks(range(len(space)), list(space))
  axes.set_xlim(-0.5, len(space) - 0.8)
  axes.set_yticks([])
  for side in axes.spines.values():
    side.set_visible(False)
  _bar(figure, axes, scale)
  return figure


def _importance(
  finished: list[FrozenTrial], space: dict[str, Any]
) -> Figure | None:
  """The shares of fields and pairs, and the losses by the first two fields."""
  losses = {_value(trial) for trial in finished}
  if len(finished) < 4 or len(losses) < 2 or len(space) < 2:
    return None
  shares = importance.shares(finished, space)
  shown = {
    " and\n".join(names): share
    for names, share in shares.items()
    if len(names) == 1 or share >= _MATTERS
  }
  figure = figures.create(10, max(3.2, 0.45 * len(shown) + 1))
  axes = figure.add_subplot(1, 2, 1)
  bars = axes.barh(list(shown), list(shown.values()))
  axes.bar_label(bars, fmt="{:.0%}", padding=3)
  axes.invert_yaxis()
  axes.set_xlim(0, 1.15 * max(shown.values()))
  axes.xaxis.set_major_formatter(PercentFormatter(1))
  axes.set_xlabel(f"share in the variance of the loss, {len(finished)} trials")
  figures.grid(axes, "x")
  axes = figure.add_subplot(1, 2, 2)
  scale = _scale(finished)
  first, second = [names[0] for names in shares if len(names) == 1][:2]
  finished = sorted(finished, key=_value, reverse=True)  # The best on top.
  places = [
    _places(axes, space[name], [t.params[name] for t in finished], way)
    for name, way in ((first, "x"), (second, "y"))
  ]
  colours = [_colour(scale, trial) for trial in finished]
  axes.scatter(*places, c=colours)
  axes.set_xlabel(first)
  axes.set_ylabel(second)
  _bar(figure, axes, scale)
  return figure
