"""evaluate: computes the loss and the task's other metrics of a split."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import visible
from seqrnn.experiment import Experiment
from seqrnn.modes import load_model
from seqrnn.runtime import figures as figures_lib
from seqrnn.runtime import files, sharding
from seqrnn.runtime.console import print_titled
from seqrnn.scoring import dynamic, spans
from seqrnn.scoring.evaluation import LabelRows, examiner
from seqrnn.scoring.predictions import quoted
from seqrnn.training.checkpoint import data_changed

_TYPES = 20  # Types of spans, at most, that are printed.
_NUMBERS = 30  # Labels, at most, of a picture with numbers.


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, float]:
  """Evaluates a checkpoint; prints a table and writes evaluation.json.

  If the task has labels, also writes their confusion matrix, confusion.csv and
  confusion.png. If the labels mark spans, also writes spans.csv.
  """
  mesh = sharding.mesh()
  experiment, params, step = load_model(
    build, config, workdir, "evaluate", sharding.replicated(mesh)
  )
  dynamic.require(experiment, config)
  split, console = config.evaluate.split, Console()
  batches = experiment.batches(split, None)
  result = examiner(experiment, mesh)(params, batches)
  assert result is not None, "nothing stops this evaluation"
  figures, answers = result
  if jax.process_index():
    return figures
  title = f"{workdir}, step {step}: {split} split"
  print_titled(console, title, _figures_table({"value": figures}))
  facts = experiment.facts(split)
  record = {"split": split, "step": step, **facts, **figures}
  if config.evaluate.dynamic:
    followed = dynamic.evaluate(build, config, experiment, params)
    record["dynamic_evaluation"] = followed
    title = (
      f"dynamic evaluation, rate {followed['rate']:g}, decay"
      f" {followed['decay']:g}"
    )
    both = {name: followed[name] for name in ("static", "dynamic")}
    print_titled(console, title, _figures_table(both))
  old = config_lib.read_run(workdir)
  same = config.data.to_dict() == old.data.to_dict()  # No flag names others.
  if same and data_changed(workdir, step, experiment):
    print(
      f"warning: {visible(str(workdir))}: the training data have changed since"
      " this run began, so the split is not the one that was held out",
      file=sys.stderr,
    )
  with files.locked_results(workdir, "evaluate") as folder:
    with files.atomic_write(folder / "evaluation.json") as file:
      file.write(json.dumps(record, indent=2) + "\n")
    if answers is not None:
      _write_confusion(folder, experiment.labels, answers, workdir.name)
      counts_3K = answers.span_counts(experiment.labels)
      if counts_3K is not None:
        _write_spans(folder, spans.span_table(experiment.labels, counts_3K))
  return figures


def _figures_table(columns: dict[str, dict[str, float]]) -> Table:
  """A row for each figure, a column for each evaluation."""
  table = Table("figure")
  for name in columns:
    table.add_column(name, justify="right")
  for name in next(iter(columns.values())):
    values = (f"{figures[name]:.4f}" for figures in columns.values())
    table.add_row(name.replace("_", " "), *values)
  return table


def _write_spans(folder: Path, rows: list[list]):
  """Writes spans.csv, and prints its first rows."""
  table = Table(*spans.COLUMNS)
  table.columns[0].overflow = "fold"  # Types often differ at their ends.
  for name, *figures in rows[: _TYPES + 1]:
    ratios = [f"{x:.4f}" for x in figures[:3]]
    table.add_row(quoted(name), *ratios, *(f"{x:,}" for x in figures[3:]))
  written = ([name, *(f"{x:.6f}" for x in f[:3]), *f[3:]] for name, *f in rows)
  files.write_csv(folder / "spans.csv", [spans.COLUMNS, *written])
  print_titled(Console(), "spans", table)


def _write_confusion(
  folder: Path, labels: Vocabulary, answers: LabelRows, title: str
):
  """Writes confusion.csv, a row per true label, and draws confusion.png.

  All labels that training has not seen share one row. The colour of a cell is
  its share of the row.
  """
  counts_VV = answers.confusion(len(labels)).astype(np.int64)
  columns = rows = np.arange(UNKNOWN + 1, len(labels))
  if counts_VV[UNKNOWN].any():
    rows = np.append(rows, UNKNOWN)
  counts = counts_VV[np.ix_(rows, columns)]
  named = zip(labels.names(rows), counts.tolist(), strict=True)
  head = ["truth", *labels.names(columns)]
  files.write_csv(
    folder / "confusion.csv", [head, *([name, *row] for name, row in named)]
  )
  side = min(max(4.5, 2 + 0.38 * len(rows)), 60)  # Inches.
  figure = figures_lib.create(side + 1, side, title)
  axes = figure.add_subplot()
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  figure.colorbar(image, label="share of the true label", shrink=0.8)
  names = lambda ids: [figures_lib.plain(n, 24) for n in labels.names(ids)]
  axes.set_xticks(range(len(columns)), names(columns), rotation=90)
  axes.set_yticks(range(len(rows)), names(rows))
  axes.set_xlabel("predicted")
  axes.set_ylabel("truth")
  if len(rows) <= _NUMBERS:
    style = {"ha": "center", "va": "center", "fontsize": 7}
    for y, x in np.argwhere(counts):
      color = "white" if shares[y, x] > 0.5 else "black"
      axes.text(x, y, f"{counts[y, x]}", color=color, **style)
  figures_lib.save(figure, folder / "confusion.png")
