"""evaluate: loss, accuracy and what else a task counts of a split."""

import json
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrnn import confusion, files, fileset, metrics, sharding
from seqrnn.checkpoint import restore_params
from seqrnn.config import Config
from seqrnn.data import vocabulary
from seqrnn.data.windows import Batches
from seqrnn.experiment import KEPT, Carry, Experiment, Params, Totals

# Batches under way. From 32 on, XLA makes the next one wait on a thread that
# CPU devices need to end those before: several of them would never end.
_AHEAD = 8


def evaluator(
  experiment: Experiment, mesh: Mesh
) -> Callable[..., dict[str, float] | None]:
  """A function params, batches -> figures, compiled once an experiment.

  Its third argument is asked before each batch: where it says true, the
  evaluation ends at once and gives None.
  """
  add_up = summed(_totals(experiment.loss), experiment, mesh)

  def evaluate(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> dict[str, float] | None:
    sums = add_up(params, batches, stop)
    return None if sums is None else metrics.finish(sums, experiment.in_bits)

  return evaluate


@lru_cache(KEPT)
def _totals(
  loss: Callable[..., Any],
) -> Callable[..., tuple[Carry, Totals]]:
  """What `summed` takes, of an experiment's loss."""
  return lambda params, carry, batch: loss(params, carry, batch, None)[1]


@lru_cache(KEPT)
def _adder(
  totals: Callable[..., Any], mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Jitted functions params, carry, batch -> sums of nothing, and `add`.

  That is params, carry, sums, batch -> carry, sums.
  """
  everywhere, batched = sharding.replicated(mesh), sharding.split(mesh)

  @partial(jax.jit, out_shardings=everywhere)
  def zeros(params, carry, batch):
    return metrics.zeros(jax.eval_shape(totals, params, carry, batch)[1])

  @partial(jax.jit, out_shardings=(batched, everywhere))
  def add(params, carry, sums, batch):
    carry, found = totals(params, carry, batch)
    return carry, metrics.add(sums, found)

  return zeros, add


def summed(
  totals: Callable[..., tuple[Carry, Any]], experiment: Experiment, mesh: Mesh
) -> Callable[..., Any]:
  """A function params, batches, stop -> sums as metrics.add makes them.

  Args:
    totals: params, carry, batch -> carry, what is summed.
    experiment: the task.
    mesh: of the devices.
  """
  zeros, add = _adder(totals, mesh)
  start = sharding.starter(experiment.carry, mesh)

  def add_up(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> Any:
    B = batches.batch_size
    sums = None
    carry = ()
    under_way = deque()
    for rows in batches.rows(*sharding.here(B, mesh)):
      if stop():
        return None
      batch = sharding.put(rows, B, mesh)
      if sums is None:
        carry = start(batch["inputs"].shape[0])
        sums = zeros(params, carry, batch)
      carry, sums = add(params, carry, sums, batch)
      under_way.append(sums)
      if len(under_way) > _AHEAD:
        jax.block_until_ready(under_way.popleft())
    assert sums is not None, "a split has at least one batch"
    return sums

  return add_up


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, float]:
  """Evaluates a checkpoint; prints a table and writes evaluation.json.

  Where a task has labels, confusion.csv and confusion.png say which are taken
  for which.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  mesh = sharding.mesh()
  restored = restore_params(
    workdir, config, shapes(experiment), sharding.replicated(mesh)
  )
  split = config.evaluate.split
  labels = experiment.labels
  count = confusion.totals(experiment)

  def totals(params, carry, batch):
    after, found = experiment.loss(params, carry, batch, None)[1]
    if labels is None:
      return after, (found, ())
    return after, (found, count(params, carry, batch)[1])

  sums, counts_VV = summed(totals, experiment, mesh)(
    restored.params, experiment.batches(split, 0)
  )
  figures = metrics.finish(sums, experiment.in_bits)
  if jax.process_index():
    return figures
  title = f"{workdir}, step {restored.step}: {split} split"
  table = Table(title=escape(title))
  table.add_column("figure")
  table.add_column("value", justify="right")
  for name, value in figures.items():
    table.add_row(name.replace("_", " "), f"{value:.4f}")
  Console().print(table)
  facts = experiment.facts(split)
  record = {"split": split, "step": restored.step, **facts, **figures}
  with fileset.results(workdir, "evaluate", "evaluated") as folder:
    with files.written(folder / "evaluation.json") as file:
      file.write(json.dumps(record, indent=2) + "\n")
    if labels is not None:
      counts_VV = jax.device_get(counts_VV)[0]
      confusion.write(folder, labels, counts_VV, workdir.name)
  return figures


def shapes(experiment: Experiment) -> Params:
  """The parameters' shapes, without computing them."""
  return jax.eval_shape(experiment.init, jax.random.key(0))
