"""describe: the parts of a model, its size and cost, its reach, its picture."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seqrnn.config import Config
from seqrnn.experiment import Batch, Experiment, require
from seqrnn.models import anatomy, budget, diagram
from seqrnn.models.anatomy import Model, Part
from seqrnn.runtime import fileset, sharding
from seqrnn.training import cost


def advice(parameters: int, symbols: int, unit: str) -> str:
  """What the number of parameters means beside the size of the data."""
  share = parameters / symbols
  facts = (
    f"{parameters:,} parameters, {symbols:,} {unit}s to train on:"
    f" {share:.2g} parameters a {unit}."
  )
  if share < 0.1:
    return (
      f"{facts} The data are larger by an order of magnitude or more: the model"
      " may be too small for what is in them. Raise model.hidden_size, or give"
      " model.parameters, as far as time allows."
    )
  if share > 10:
    return (
      f"{facts} The model is larger by an order of magnitude or more: it may"
      " learn the data by heart. Watch the validation loss; get more data,"
      " raise model.dropout, or lower model.hidden_size."
    )
  return f"{facts} Both are of about the same order of magnitude: go on."


def reach(model: Model, config: Config) -> str:
  """How far from a prediction the model can learn what it rests on."""
  T, unit = config.data.window, model.unit
  if model.towers:
    return (
      f"Gradients reach all of the window on both sides of a {unit},"
      f" {T - 1} {unit}s (data.window). Neither they nor the states go over its"
      " edges."
    )
  if model.merge:
    return (
      f"Gradients reach all of the window, {T} {unit}s (data.window), which is"
      " read from both ends."
    )
  back = f"Gradients reach back to the beginning of the window, at most {T}"
  if config.data.stateful:
    return (
      f"{back} {unit}s (data.window). The state comes from the window before"
      " (data.stateful): it may hold what is older, which no gradient teaches"
      " it to keep for longer than a window."
    )
  return (
    f"{back} {unit}s (data.window), and so do states in training: each window"
    " begins without one (data.stateful=False)."
  )


def _shape(sizes: tuple[int, ...]) -> str:
  return " x ".join(f"{size:,}" for size in sizes)


def _megabytes(count: int) -> str:
  return f"{count / 1e6:,.1f} MB"


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Part]:
  """Prints the parts and the cost of a model; writes model.svg and model.png.

  The model may have been trained or not.

  Raises:
    UserError: the config describes no model, or its data are missing.
  """
  config, experiment = budget.settle(build, config, workdir)
  require(experiment, "describe", config.task)
  batches = experiment.batches("train", 0)
  model = anatomy.anatomy(experiment, config, batches[0])
  found = anatomy.parts(model)
  size = sum(part.parameters for part in found)
  console = Console(highlight=False)
  console.print(_parts_table(model, found, size))
  console.print(advice(size, experiment.facts("train")["symbols"], model.unit))
  console.print(reach(model, config))

  workdir.mkdir(parents=True, exist_ok=True)
  title = f"{config.task}: {size:,} parameters"
  with fileset.results(workdir, "describe", "described") as folder:
    diagram.write(folder, title, anatomy.picture(model, config))
  print(f"{workdir / 'model.svg'}, {workdir / 'model.png'}: the picture")

  seconds = _print_cost(console, model, experiment, config, batches[0])
  epoch = len(batches) * seconds
  duration = f"{epoch:,.0f} s" if epoch < 100 else f"{epoch / 60:,.0f} minutes"
  console.print(
    f"An epoch has {len(batches):,} steps: {duration}, if all are as large."
  )
  return found


def _parts_table(model: Model, found: list[Part], size: int) -> Table:
  table = Table("part", "output", "parameters", "how many", "where")
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
  """Prints what a step takes; returns its seconds, measured where asked for."""
  mesh = sharding.mesh()
  table = Table("a step", "kept between steps", "within a step", "time")
  table.caption = f"devices: {mesh.size}, the memory of each"

  def add(name, step):
    memory = _megabytes(step.state), _megabytes(step.passing)
    table.add_row(name, *memory, f"{1000 * step.seconds:,.1f} ms")

  step = cost.estimate(model, experiment, config, batch, mesh)
  add("estimated, products alone", step)
  if config.describe.measure:
    step, compiling = cost.measure(experiment, config, batch, mesh)
    add(f"measured, {cost.MEASURED_STEPS} steps", step)
    console.print(f"Compiled in {compiling:.1f} s.")
  console.print(table)
  return step.seconds
