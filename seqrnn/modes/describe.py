"""describe: prints a model's parts, size and memory; draws the model."""

from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from seqrnn.config.read import Config
from seqrnn.experiment import Build
from seqrnn.models.parts import PartSize, part_sizes
from seqrnn.modes import require_mode
from seqrnn.reporting import diagram
from seqrnn.runtime import devices, pictures
from seqrnn.training.setup import Training
from seqrnn.training.train import make_training


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
      " model may underfit: raise model.hidden_size or set model.parameters."
    )
  if ratio > 10:
    return (
      f"{facts} The model is larger by an order of magnitude or more, so it may"
      " overfit: add data, raise model.dropout, or lower model.hidden_size."
    )
  return f"{facts} Both have about the same order of magnitude, as they should."


def run(build: Build, config: Config, workdir: Path) -> list[PartSize]:
  """Prints the parts of a model; writes model.png.

  The model need not have been trained.

  Raises:
    UserError: the config is invalid for its task, or the data are missing.
  """
  training = make_training(build, config, workdir)
  config, experiment = training.config, training.experiment
  require_mode(experiment, "describe", config.task)
  batches = experiment.batches("train", 0)
  sizes = part_sizes(experiment, config)
  total = sum(part.parameters for part in sizes)
  console = Console(highlight=False)
  table = Table("part", "parameters", "formula", "values")
  for part in sizes:
    values = ", ".join(f"{name}={n:,}" for name, n in part.values.items())
    table.add_row(part.name, f"{part.parameters:,}", part.formula, values)
  table.add_row("all", f"{total:,}")
  console.print(table)
  if training.record is not None:
    print(training.record)
  symbols = experiment.facts("train")["symbols"]
  console.print(advice(total, symbols, experiment.reads))
  _print_cost(training)
  console.print(f"An epoch has {len(batches):,} steps.")

  workdir.mkdir(parents=True, exist_ok=True)
  title = f"{config.task}: {total:,} parameters"
  _, T, *_ = batches[0]["inputs"].shape
  pooled = batches[0]["targets"].shape[1] == 1 < T
  boxes = diagram.boxes(experiment, config, sizes, pooled)
  pictures.save(diagram.draw(title, boxes), workdir / "model.png", dpi=144)
  print(f"{workdir / 'model.png'}: the picture")
  return sizes


def _print_cost(training: Training):
  """Compiles a training step, and prints the memory that XLA plans for it.

  XLA's analysis of operations counts the body of a loop once, whatever the
  number of steps, so it is no measure of a recurrent network.
  """
  memory = training.lower_step().compile().memory_analysis()
  assert memory is not None, "XLA plans it on every platform"
  state = jax.tree.leaves(training.start.eval_shape(np.uint32(0)))
  size = sum(x.size * x.dtype.itemsize for x in state)
  print(
    f"A training step needs {size / 1e6:,.1f} MB for its state and"
    f" {memory.temp_size_in_bytes / 1e6:,.1f} MB within it, on each device:"
    f" {devices.words(training.mesh)}"
  )
