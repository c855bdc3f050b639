"""evaluate: computes the loss and the task's other metrics of a split."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.errors import UserError, visible
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.runtime import files, sharding
from seqrnn.runtime.console import print_titled
from seqrnn.scoring import confusion, dynamic, spans
from seqrnn.scoring.dynamic import Followed
from seqrnn.scoring.evaluation import examiner
from seqrnn.scoring.predictions import quoted
from seqrnn.training.checkpoint import read_position, restore_params

_TYPES = 20  # Types of spans, at most, that are printed.


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, float]:
  """Evaluates a checkpoint; prints a table and writes evaluation.json.

  If the task has labels, also writes their confusion matrix, confusion.csv and
  confusion.png. If the labels mark spans, also writes spans.csv.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  dynamic.require(experiment, config)
  mesh = sharding.mesh()
  restored = restore_params(
    workdir,
    config.checkpoint.step,
    shapes(experiment),
    sharding.replicated(mesh),
  )
  split = config.evaluate.split
  found = examiner(experiment, mesh)(
    restored.params, experiment.batches(split, None)
  )
  assert found is not None, "nothing stops this evaluation"
  figures, answers = found
  if jax.process_index():
    return figures
  title = f"{workdir}, step {restored.step}: {split} split"
  print_titled(Console(), title, _figures_table(figures))
  more = _dynamic(build, config, experiment, restored.params)
  rows = []
  if experiment.spans is not None and answers is not None:
    counts_3K = answers.span_counts(experiment.spans)
    rows = spans.table(experiment.spans.types, counts_3K)
    print_titled(Console(), "spans", _spans_table(rows))
  if _changed(experiment, config, workdir, restored.step):
    print(
      f"warning: {visible(str(workdir))}: the training data have changed since"
      " this run began, so the split is not the one that was held out",
      file=sys.stderr,
    )
  facts = experiment.facts(split)
  record = {"split": split, "step": restored.step, **facts, **figures, **more}
  with files.locked_results(workdir, "evaluate", "evaluated") as folder:
    with files.atomic_write(folder / "evaluation.json") as file:
      file.write(json.dumps(record, indent=2) + "\n")
    if answers is not None:
      labels = experiment.labels
      counts_VV = answers.confusion(len(labels))
      confusion.write(folder, labels, counts_VV, workdir.name)
    if rows:
      spans.write(folder, rows)
  return figures


def _figures_table(figures: dict[str, float]) -> Table:
  table = Table()
  table.add_column("figure")
  table.add_column("value", justify="right")
  for name, value in figures.items():
    table.add_row(name.replace("_", " "), f"{value:.4f}")
  return table


def _dynamic(
  build: Callable[..., Experiment],
  config: Config,
  experiment: Experiment,
  params: Params,
) -> dict[str, Any]:
  """Evaluates with parameters that follow the text, if the config says so.

  Returns:
    what evaluation.json has of it.
  """
  if not config.evaluate.dynamic:
    return {}
  found = dynamic.evaluate(build, config, experiment, params)
  rate, decay = found.rule
  title = f"dynamic evaluation, rate {rate:g}, decay {decay:g}"
  print_titled(Console(), title, _dynamic_table(found))
  return {"dynamic_evaluation": found.record()}


def _dynamic_table(found: Followed) -> Table:
  table = Table()
  table.add_column("figure")
  for name in ("static", "dynamic"):
    table.add_column(name, justify="right")
  for name, value in found.dynamic.items():
    both = f"{found.static[name]:.4f}", f"{value:.4f}"
    table.add_row(name.replace("_", " "), *both)
  return table


def _spans_table(rows: list) -> Table:
  table = Table(*spans.COLUMNS)
  table.columns[0].overflow = "fold"  # Types often differ at their ends.
  for row in rows[: 1 + _TYPES]:
    cells = (f"{x:.4f}" if isinstance(x, float) else f"{x:,}" for x in row[1:])
    table.add_row(quoted(row[0]), *cells)
  return table


def _changed(
  experiment: Experiment, config: Config, workdir: Path, step: int
) -> bool:
  """Whether files that the run was trained on have other content now."""
  own = config_lib.flat(config)
  old = config_lib.flat(config_lib.read_run(workdir))
  if any(own[name] != old[name] for name in own if name.startswith("data.")):
    return False  # The user has named other data.
  trained = read_position(workdir / "checkpoints" / str(step)).crc32
  with suppress(UserError):  # Only the split that is evaluated may be here.
    return trained not in (None, experiment.facts("train")["crc32"])
  return False
