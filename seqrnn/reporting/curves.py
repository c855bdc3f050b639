"""Section of a report on the metrics of training by step."""

from collections.abc import Iterable
from pathlib import Path

from seqrnn.reporting import charts
from seqrnn.reporting.page import Element, element, section
from seqrnn.training.history import read_rows

# Metrics between 0 and 1.
_SHARES = ("accuracy", "macro_f1", "precision", "recall", "f1")
_FIRST = ("loss", "bits_per_symbol", "perplexity", "accuracy")

Tables = dict[str, list[dict[str, str]]]  # Name of a run -> rows of its table.


def ordered(names: Iterable[str]) -> list[str]:
  """Sorts names of metrics: loss, bits, perplexity, accuracy, all others."""
  place = {name: n for n, name in enumerate(_FIRST)}
  return sorted(names, key=lambda name: place.get(name, len(_FIRST)))


def validation_figures(row: dict[str, str]) -> list[str]:
  """Names of the validation metrics in a row of metrics.csv."""
  prefix = "validation_"
  return [name.removeprefix(prefix) for name in row if name.startswith(prefix)]


def curves(
  runs: dict[str, Path], loss_unit: str = "", noise: bool = False
) -> Element:
  """Curves of one run, or of several runs in the same charts.

  Args:
    runs: name -> workdir.
    loss_unit: the unit of the loss; "" for several runs, whose units may
      differ.
    noise: whether a single run was trained with dropout or other noise.
  """
  metrics = {
    name: read_rows(path / "metrics.csv") for name, path in runs.items()
  }
  timing = {name: read_rows(path / "timing.csv") for name, path in runs.items()}
  names = dict.fromkeys(
    name
    for rows in metrics.values()
    for name in validation_figures(rows[0] if rows else {})
    if name != "perplexity"
  )
  if not names:
    words = "The run has no evaluation yet, so there is no curve."
    return section("Training", element("p", words))
  drawn = [_figure_chart(metrics, name, loss_unit) for name in ordered(names)]
  for tables, column, title, unit in (
    (metrics, "learning_rate", "Learning rate", "at the step"),
    (metrics, "gradient_norm", "Gradient norm", "of the whole gradient"),
    (timing, "symbols_per_second", "Speed", "symbols per second"),
  ):
    series = _series(tables, column)
    drawn.append(charts.lines(title, series, "step", unit, zero=True))
  words = "Each point is an evaluation."
  if len(runs) == 1:
    words += " The training curve is the mean since the previous point"
    words += ", with dropout and other noise." if noise else "."
  return section(
    "Training",
    element("p", words),
    element("div", drawn, class_="grid"),
  )


def _series(tables: Tables, column: str) -> charts.Series:
  """A column of each table that has it, by step."""
  return {
    name: (
      [int(row["step"]) for row in rows],
      [float(row[column]) for row in rows],
    )
    for name, rows in tables.items()
    if rows and column in rows[0]
  }


def _figure_chart(metrics: Tables, name: str, loss_unit: str) -> Element:
  """Charts a metric: both splits of one run, or validation of several runs."""
  title = name.replace("_", " ").capitalize()
  series = _series(metrics, f"validation_{name}")
  if len(metrics) == 1:
    train = _series(metrics, f"train_{name}")
    parts = {"training": train, "validation": series}
    series = {part: xy for part, own in parts.items() for xy in own.values()}
  else:
    title += ", validation"
  unit = "from 0 to 1" if name in _SHARES else ""
  unit = "bits" if name == "bits_per_symbol" else unit
  unit = loss_unit if name.endswith("loss") else unit
  return charts.lines(title, series, "step", unit)
