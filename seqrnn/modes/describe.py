"""describe: prints a model's parts, size, cost and context; draws the model."""

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from seqrnn.config.read import Config
from seqrnn.experiment import Batch, Experiment, require
from seqrnn.models import diagram
from seqrnn.models.diagram import Part
from seqrnn.runtime import devices, files, sharding
from seqrnn.training import optimizers, setup
from seqrnn.training.step import make_start, make_step

_MEASURED_STEPS = 3


def advice(parameters: int, symbols: int, unit: str) -> str:
  """Compares the number of parameters with the size of the training data."""
  ratio = parameters / symbols
  facts = (
    f"{parameters:,} parameters, {symbols:,} {unit}s to train on:"
    f" {ratio:.2g} parameters a {unit}."
  )
  if ratio < 0.1:
    return (
      f"{facts} The data are larger by an order of magnitude or more, so the"
      " model may underfit. Raise model.hidden_size or set model.parameters, as"
      " far as the training time allows."
    )
  if ratio > 10:
    return (
      f"{facts} The model is larger by an order of magnitude or more, so it may"
      " overfit. Watch the validation loss; add data, raise model.dropout, or"
      " lower model.hidden_size."
    )
  return f"{facts} Both have about the same order of magnitude, as they should."


def reach(experiment: Experiment, config: Config) -> str:
  """Explains over how many symbols gradients and states reach."""
  T, unit = config.data.window, experiment.reads
  if experiment.fills_gaps:
    return (
      f"Gradients reach the whole window on both sides of a {unit}, {T - 1}"
      f" {unit}s (data.window). Gradients and states do not cross its edges."
    )
  if config.model.bidirectional:
    return (
      f"Gradients reach the whole window, {T} {unit}s (data.window), which is"
      " read in both directions."
    )
  back = f"Gradients reach back to the start of the window, at most {T}"
  if config.data.stateful:
    return (
      f"{back} {unit}s (data.window). The state continues from the previous"
      " window (data.stateful), so it may depend on older symbols, which no"
      " gradient reaches."
    )
  return (
    f"{back} {unit}s (data.window). In training so do states, because each"
    " window starts from the zero state (data.stateful=False)."
  )


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Part]:
  """Prints the parts and the cost of a model; writes model.svg and model.png.

  The model need not have been trained.

  Raises:
    UserError: the config is invalid for its task, or the data are missing.
  """
  start = setup.settle(build, config, workdir)
  config, experiment = start.config, start.experiment
  require(experiment, "describe", config.task)
  batches = experiment.batches("train", 0)
  shares = optimizers.shares(experiment, config, start.record)
  parts = diagram.parts(experiment, config)
  size = sum(part.parameters for part in parts)
  console = Console(highlight=False)
  console.print(_parts_table(parts, size))
  if start.record is not None:
    print("\n".join(start.record.lines()))
  if shares is not None and (frozen := shares.count_frozen(experiment)):
    print(f"{frozen:,} of them are frozen (train.freeze={config.train.freeze})")
  symbols = experiment.facts("train")["symbols"]
  console.print(advice(size, symbols, experiment.reads))
  console.print(reach(experiment, config))

  files.make_workdir(workdir)
  title = f"{config.task}: {size:,} parameters"
  _, T, *_ = batches[0]["inputs"].shape
  pooled = batches[0]["targets"].shape[1] == 1 < T
  boxes = diagram.rows(experiment, config, parts, pooled)
  with files.locked_results(workdir, "describe", "described") as folder:
    diagram.save_pictures(folder, title, boxes)
  print(f"{workdir / 'model.svg'}, {workdir / 'model.png'}: the picture")

  line = f"An epoch has {len(batches):,} steps"
  if config.describe.measure:
    epoch = len(batches) * _print_cost(experiment, config, batches[0])
    duration = (
      f"{epoch:,.0f} s" if epoch < 100 else f"{epoch / 60:,.0f} minutes"
    )
    line += f" and takes {duration} if all batches have the same size"
  console.print(f"{line}.")
  return parts


def _parts_table(parts: list[Part], size: int) -> Table:
  table = Table("part", "parameters", "formula", "values")
  for part in parts:
    values = ", ".join(f"{name}={n:,}" for name, n in part.values.items())
    table.add_row(part.name, f"{part.parameters:,}", part.formula, values)
  table.add_row("all", f"{size:,}")
  return table


def _print_cost(experiment: Experiment, config: Config, batch: Batch) -> float:
  """Compiles and runs a few steps, prints their cost; returns their seconds.

  XLA's analysis of costs counts the body of a loop once, whatever the number of
  steps, so that its operations are no measure of a recurrent network.
  """
  mesh = sharding.mesh()
  # The schedule does not change the time of a step.
  optimizer = lambda rate: optimizers.optimizer(
    config, optax.constant_schedule(rate)
  )
  average = config.train.ema is not None
  start = make_start(experiment, optimizer, batch, mesh, average)
  state = start(np.uint32(config.seed))
  rows = sharding.put(batch, len(batch["inputs"]), mesh)
  rate = config.optimizer.learning_rate
  step: Any = make_step(experiment, optimizer, mesh, config.train.ema or 1.0)
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  times = [time.perf_counter()]
  compiled = step.lower(state, rows, rate).compile()
  for _ in range(1 + _MEASURED_STEPS):  # The first step warms up.
    times.append(time.perf_counter())
    state, loss = compiled(state, rows, rate)
    loss.block_until_ready()
  times.append(time.perf_counter())
  compiling, _, *seconds = (b - a for a, b in itertools.pairwise(times))
  second = statistics.median(seconds)
  within = compiled.memory_analysis().temp_size_in_bytes
  print(
    f"Compiled in {compiling:.1f} s. A step takes {1000 * second:,.1f} ms,"
    f" {size / 1e6:,.1f} MB for its state and {within / 1e6:,.1f} MB within it,"
    f" on each device: {devices.words(mesh)}"
  )
  return second
