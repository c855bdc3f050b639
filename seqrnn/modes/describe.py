"""describe: prints a model's parts, size, cost and context; draws the model."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seqrnn.experiment import Batch, Experiment, require
from seqrnn.models import anatomy, diagram
from seqrnn.models.anatomy import Model, Part
from seqrnn.runtime import devices, files, fileset, sharding
from seqrnn.settings.config import Config
from seqrnn.training import cost, fit_size, rates, transfer


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


def reach(model: Model, config: Config) -> str:
  """Explains over how many symbols gradients and states reach."""
  T, unit = config.data.window, model.unit
  if model.towers:
    return (
      f"Gradients reach the whole window on both sides of a {unit}, {T - 1}"
      f" {unit}s (data.window). Gradients and states do not cross its edges."
    )
  if model.merge:
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


def _shape(sizes: tuple[int, ...]) -> str:
  return " x ".join(f"{size:,}" for size in sizes)


def _megabytes(count: int) -> str:
  return f"{count / 1e6:,.1f} MB"


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Part]:
  """Prints the parts and the cost of a model; writes model.svg and model.png.

  The model need not have been trained.

  Raises:
    UserError: the config is invalid for its task, or the data are missing.
  """
  start = transfer.settle(build, config, workdir)
  config, experiment = fit_size.settle(build, start, workdir)
  require(experiment, "describe", config.task)
  batches = experiment.batches("train", 0)
  learns = rates.shares(experiment, config, len(batches), start.record)
  model = anatomy.anatomy(experiment, config, batches[0])
  found = anatomy.parts(model)
  size = sum(part.parameters for part in found)
  console = Console(highlight=False)
  console.print(_parts_table(model, found, size))
  if start.record is not None:
    print("\n".join(start.record.lines()))
  if learns is not None and (held := learns.held(experiment)):
    print(
      f"{held:,} of them {'start later' if learns.unfreezes else 'are frozen'}"
      f" (train.freeze={config.train.freeze})"
    )
  console.print(advice(size, experiment.facts("train")["symbols"], model.unit))
  console.print(reach(model, config))

  files.make_workdir(workdir)
  title = f"{config.task}: {size:,} parameters"
  with fileset.results(workdir, "describe", "described") as folder:
    diagram.write(folder, title, anatomy.picture(model, config))
  print(f"{workdir / 'model.svg'}, {workdir / 'model.png'}: the picture")

  seconds = _print_cost(console, model, experiment, config, batches[0])
  epoch = len(batches) * seconds
  duration = f"{epoch:,.0f} s" if epoch < 100 else f"{epoch / 60:,.0f} minutes"
  console.print(
    f"An epoch has {len(batches):,} steps and takes {duration} if all batches"
    " have the same size."
  )
  return found


def _parts_table(model: Model, found: list[Part], size: int) -> Table:
  table = Table("part", "output", "parameters", "formula", "values")
  table.add_row("input", _shape(model.inputs))
  for part in found:
    values = ", ".join(f"{name}={n:,}" for name, n in part.values.items())
    table.add_row(
      part.name,
      _shape(part.gives),
      f"{part.parameters:,}",
      part.formula,
      values,
    )
  table.add_row("all", "", f"{size:,}")
  return table


def _print_cost(
  console: Console,
  model: Model,
  experiment: Experiment,
  config: Config,
  batch: Batch,
) -> float:
  """Prints the memory and time of a step; returns its seconds."""
  mesh = sharding.mesh()
  table = Table("a step", "kept between steps", "within a step", "time")

  def add(name, step):
    memory = _megabytes(step.state), _megabytes(step.temporary)
    table.add_row(name, *memory, f"{1000 * step.seconds:,.1f} ms")

  step = cost.estimate(model, experiment, config, batch, mesh)
  add("estimated from products", step)
  if config.describe.measure:
    step, compiling = cost.measure(experiment, config, batch, mesh)
    add(f"measured, {cost.MEASURED_STEPS} steps", step)
    console.print(f"Compiled in {compiling:.1f} s.")
  console.print(table)
  print(f"memory is that of each device: {devices.words(mesh)}")
  return step.seconds
