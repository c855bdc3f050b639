"""evaluate: computes the loss and the task's other metrics of a split."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from seqrnn.config.read import Config, read_run
from seqrnn.data.documents import nouns
from seqrnn.errors import UserError, counted, report
from seqrnn.experiment import Build, Experiment
from seqrnn.modes import load_model
from seqrnn.runtime import files, pictures, sharding
from seqrnn.runtime.console import print_titled
from seqrnn.scoring import confusion, dynamic, simple, spans
from seqrnn.scoring.evaluation import examine_split
from seqrnn.scoring.predictions import quoted
from seqrnn.training.setup import data_changed

_TYPES = 20  # Types of spans, at most, that are printed.


def run(build: Build, config: Config, workdir: Path) -> dict[str, float]:
  """Evaluates a checkpoint; prints a table and writes evaluation.json.

  If the task has labels, also writes their confusion matrix, confusion.csv and
  confusion.png. If the labels mark spans, also writes spans.csv.
  """
  everywhere = sharding.replicated(sharding.mesh())
  experiment, params, step = load_model(
    build, config, workdir, "evaluate", everywhere
  )
  dynamic.require(experiment, config)
  split, console = config.evaluate.split, Console()
  figures, answers = examine_split(experiment, params, split)
  if jax.process_index():
    return figures
  facts = experiment.facts(split)
  documents = counted(facts["documents"], nouns(config.data.unit)[1])
  title = f"{workdir}, step {step}: {split} split, {documents}"
  print_titled(console, title, _figures_table({"value": figures}))
  record = {"split": split, "step": step, **facts, **figures}
  if config.evaluate.dynamic:
    followed = dynamic.evaluate(build, config, experiment, params)
    record["dynamic_evaluation"] = followed
    rule = f"rate {followed['rate']:g}, decay {followed['decay']:g}"
    if not followed["rate"]:
      rule = "off: no rate has a lower loss on validation"
    title = f"dynamic evaluation, {rule}"
    both = {name: followed[name] for name in ("static", "dynamic")}
    print_titled(console, title, _figures_table(both))
  if config.evaluate.simple:
    record |= _print_simple(experiment, config)
  old = read_run(workdir)
  same = config.data.to_dict() == old.data.to_dict()  # No flag names others.
  if same and data_changed(workdir, step, experiment):
    report(
      f"warning: {workdir}: the training data have changed since this run"
      " began, so the split is not the one that was held out"
    )
  with files.locked_results(workdir, "evaluate") as folder:
    content = json.dumps(record, indent=2) + "\n"
    files.write(folder / "evaluation.json", content)
    if answers is not None:
      labels = experiment.labels
      table = confusion.confusion_table(labels, answers)
      files.write_csv(folder / "confusion.csv", table)
      picture = confusion.draw(table, workdir.name)
      pictures.save(picture, folder / "confusion.png")
      weights_V = np.bincount(answers.target, answers.weight)
      [name], share = labels.names([weights_V.argmax()]), weights_V.max()
      share /= weights_V.sum()
      print(
        f"most frequent {experiment.unit}: {name!r}, a share of {share:.4f}"
      )
      counts_3K = answers.span_counts(labels)
      if counts_3K is not None:
        _write_spans(folder, spans.span_table(labels, counts_3K))
  return figures


def _print_simple(experiment: Experiment, config: Config) -> dict[str, Any]:
  """Prints the figures of a simple method; returns an entry of the record."""
  with suppress(UserError):  # Other splits may not be on this machine.
    result = simple.compare(experiment, config, config.evaluate.split)
    if result is not None:
      name, figures = result
      values = (f"{k.replace('_', ' ')} {x:.4f}" for k, x in figures.items())
      print(f"{name}, on the same split: {', '.join(values)}")
      return {"simple_method": {"name": name, **figures}}
  return {}


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
