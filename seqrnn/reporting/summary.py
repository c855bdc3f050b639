"""Sections of a report on a run's settings, training and metrics."""

from collections.abc import Iterable
from pathlib import Path

import jax

from seqrnn.config.read import Config, defaults, differences
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.reporting import charts
from seqrnn.reporting.page import Heading, Section, Tile
from seqrnn.reporting.subject import Subject
from seqrnn.scoring.evaluation import Figures
from seqrnn.training.history import read_rows

# Metrics between 0 and 1.
_SHARES = ("accuracy", "macro_f1", "precision", "recall", "f1")
_FIRST = ("loss", "bits_per_symbol", "perplexity", "accuracy")

Tables = dict[str, list[dict[str, str]]]  # Name of a run -> its table.


def heading(subject: Subject, figures: Figures) -> Heading:
  """The top of the page: the run in a few sentences, and its main metrics."""
  config, model = subject.config, subject.config.model
  labels = subject.experiment.labels
  count = 0 if labels is None else len(labels.symbols)
  about = subject.experiment.report.about
  size = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
  sentences = [
    about.format(word=subject.word, count=count),
    f"{model.layers} layer{'s' * (model.layers > 1)} of {model.hidden_size}"
    f" units ({model.cell}), {size:,} parameters.",
  ]
  if "train" in subject.sizes:
    symbols = subject.sizes["train"]
    sentences.append(f"The training split has {symbols:,} {subject.word}s.")
  sentences.append(f"This page shows the checkpoint of step {subject.step:,}.")
  return Heading(
    config.task.replace("_", " "),
    subject.workdir.name,
    " ".join(sentences),
    subject.caution,
    _tiles(subject, figures),
  )


def _tiles(subject: Subject, figures: Figures) -> list[Tile]:
  """The most important metrics of the last evaluated split."""
  target = subject.target
  names = {
    "bits_per_symbol": f"bits per {target}",
    "accuracy": f"accuracy of {target}s",
    "macro_f1": "macro F1",
    "f1": "F1",
    "perplexity": "perplexity",
  }
  if subject.experiment.names is None:
    part = "note" if target == "frame" else target
    measure = subject.experiment.measure
    names = {"r_squared": "r², 1 at best", "loss": measure}
    names["accuracy"] = f"accuracy of {part}s"
  tiles = []
  splits = [split for split in SPLITS if f"{split}_loss" in figures]
  for split in splits[-1:]:
    for name in names:
      if (value := figures.get(f"{split}_{name}")) is not None:
        form = ".1%" if name == "accuracy" else ".3f"
        tiles.append((format(value, form), f"{names[name]}, {split} split"))
  return tiles


def metrics(subject: Subject, step: int | None, figures: Figures) -> Section:
  """The figures of each split, as `gathering.best_evaluation` has them."""
  names = validation_figures(figures)
  words = [_words(name, subject.target) for name in names]
  rows = [
    [split, *(figures.get(f"{split}_{name}") for name in names)]
    for split in SPLITS
    if f"{split}_loss" in figures
  ]
  head, missing = ["split", *words], subject.missing
  table = {"step": step, "head": head, "rows": rows, "missing": missing}
  return Section("Metrics", "metrics", table)


def ordered(names: Iterable[str]) -> list[str]:
  """Sorts names of metrics: loss, bits, perplexity, accuracy, all others."""
  place = {name: n for n, name in enumerate(_FIRST)}
  return sorted(names, key=lambda name: place.get(name, len(_FIRST)))


def _words(name: str, target: str) -> str:
  """The name of a metric, with the word for what is predicted."""
  return name.replace("_", " ").replace("symbol", target)


def validation_figures(row: Iterable[str]) -> list[str]:
  """Names of the validation metrics among the columns of metrics.csv."""
  prefix = "validation_"
  return [name.removeprefix(prefix) for name in row if name.startswith(prefix)]


def curves(
  runs: dict[str, Path], loss_unit: str = "", target: str = "symbol"
) -> Section:
  """Metrics by step of one run, or of several runs in the same charts.

  Args:
    runs: name -> workdir.
    loss_unit: the unit of the loss; "" for several runs, whose units may
      differ.
    target: the word for what is predicted.
  """
  metrics, timing = (
    {name: read_rows(path / file) for name, path in runs.items()}
    for file in ("metrics.csv", "timing.csv")
  )
  names = dict.fromkeys(
    name
    for rows in metrics.values()
    for name in validation_figures(rows[0] if rows else {})
    if name != "perplexity"
  )
  drawn = [
    _metric_chart(metrics, name, loss_unit, _words(name, target).capitalize())
    for name in ordered(names)
  ]
  for tables, column, title, unit in (
    (metrics, "learning_rate", "Learning rate", "at the step"),
    (metrics, "gradient_norm", "Gradient norm", "of the whole gradient"),
    (timing, "symbols_per_second", "Speed", f"{target}s per second"),
  ):
    series = _series(tables, column)
    if names:
      drawn.append(charts.lines(title, series, "step", unit, zero=True))
  return Section("Training", "training", {"charts": drawn, "runs": len(runs)})


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


def _metric_chart(
  metrics: Tables, name: str, loss_unit: str, title: str
) -> charts.Chart:
  """Charts a metric: both splits of one run, or validation of several runs."""
  series = _series(metrics, f"validation_{name}")
  if len(metrics) == 1:
    train = _series(metrics, f"train_{name}")
    splits = {"training": train, "validation": series}
    series = {
      split: xy for split, by_run in splits.items() for xy in by_run.values()
    }
  else:
    title += ", validation"
  unit = "from 0 to 1" if name in _SHARES else ""
  unit = "bits" if name == "bits_per_symbol" else unit
  unit = loss_unit if name.endswith("loss") else unit
  return charts.lines(title, series, "step", unit)


def settings(config: Config) -> Section:
  """The fields that differ from the defaults."""
  changes = differences(defaults(), config)
  return Section("Configuration", "fields", {"changes": changes})
