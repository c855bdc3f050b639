"""The jitted programs of a config, for devices that need not be here.

  mesh = programs.compile_mesh("v5e:2x2")     # needs libtpu, but no TPU
  made = programs.make("train", config, experiment, mesh)
  compiled = made.function.lower(*made.args).compile()

They are the functions that the modes call, traced for the devices of the mesh.
Arguments are shapes, so no array is made.
"""

import math
import random
import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data.read.music import NOTES
from seqrnn.experiment import Experiment
from seqrnn.experiment import shapes as parameter_shapes
from seqrnn.logs.detect.ensemble import Ensemble
from seqrnn.logs.follow.stepping import advancer
from seqrnn.runtime import sharding
from seqrnn.sampling import decoding
from seqrnn.sampling.sampler import drawer
from seqrnn.scoring.evaluation import adder, totals
from seqrnn.scoring.predictions import calculator, ranker
from seqrnn.scoring.scoring import ROWS, batch_scorer
from seqrnn.training import optimizers
from seqrnn.training.step import make_start, make_step, state_shapes

_ROOT = Path(__file__).resolve().parents[1]
_H100 = _ROOT / "benchmarks" / "h100.txtpb"
_FOLDS = 5  # Models that follow a log.
TARGETS = ("v5e:1x1", "v5e:2x2", "h100:1", "h100:4")
# The vocabulary of a data set that is not here: characters of tinyshakespeare,
# words of UD-EWT that occur twice, templates of a log.
_SIZES = {"char_rnn": 65, "ud_ewt": 9_873, "imdb_brnn": 20_000, "logs": 60}


class Program(NamedTuple):
  """A jitted function and the shapes of its arguments.

  Attributes:
    function: jitted for the mesh it was made with.
    args: a tree of jax.ShapeDtypeStruct.
    steps: the time steps of a layer: of the batch, and of the letters of a
      word, 0 without.
  """

  function: Any
  args: tuple[Any, ...]
  steps: tuple[int, int] = (0, 0)


def compile_mesh(target: str) -> Mesh:
  """Returns a mesh of devices to compile for, none of which has to be here.

  Args:
    target: of TARGETS: the device, and the chips of a TPU or a number of GPUs.

  Raises:
    RuntimeError: the package that compiles for the device is not installed.
  """
  device, shape = target.split(":")
  if device == "h100":
    topology = topologies.get_topology_desc(
      platform="cuda",
      target_config=_H100.read_text(),
      topology=f"1x1x{shape}",
    )
  else:
    one = {"chip_config_name": "default", "chips_per_host_bounds": (1, 1, 1)}
    given: dict[str, Any] = one if shape == "1x1" else {}
    topology = topologies.get_topology_desc(target, platform="tpu", **given)
  devices = np.array(topology.devices)
  return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def read_config(name: str, fields: dict[str, Any], folder: Path) -> Config:
  """Returns a config of configs/, with data of the right shapes.

  A data set that is not here is replaced by random text, with a vocabulary of
  the size that the data set gives.

  Args:
    name: of the file in configs/.
    fields: values that replace those of the file.
    folder: for the text.
  """
  path = _ROOT / "configs" / f"{name}.py"
  config = config_lib.read(path)
  if config.data.source in (*catalogue.sets(), "files"):
    text = folder / f"{name}.txt"
    if not text.exists():
      text.write_text(_text(config, _SIZES[name]), "utf-8")
    config.data.source, config.data.path = "files", str(text)
    config.data.split = "auto"
    config.data.validation_fraction = 0.1
  for field, value in fields.items():
    config_lib.override(config, field, str(value))
  config_lib.check(config)
  return config


def _text(config: Config, size: int) -> str:
  """Returns random text in the config's format, of `size` distinct symbols."""
  rng = random.Random(0)
  letters = string.ascii_letters + string.digits
  if config.data.unit == "char":
    symbols = (letters + string.punctuation)[: size - 2] + " \n"
    return symbols + "".join(rng.choices(symbols, k=100_000))
  # Often enough to be at least twice in the training split.
  words = [f"{rng.choice(letters)}{n:x}" for n in range(size)]
  words *= max(8, -(-10_000 // size))
  rng.shuffle(words)
  if config.data.unit == "log":
    head = "2020-01-01 10:00:00"
    lines = [
      f"{head} {word}-{word} x{n // 64}:amd64 done\n"
      for n, word in enumerate(words)
    ]
  elif config.data.format == "conllu":
    tags = "ABCDEFGHIJKLMNOPQ"  # UPOS has 17.
    lines = [
      f"1\t{word}\t_\t{tags[n % 17]}{6 * chr(9)}_\n" + "\n" * (n % 30 == 0)
      for n, word in enumerate(words)
    ]
  else:
    lines = [
      f"{n // 100 % 2}\t{n}\t{' '.join(words[n : n + 100])}\n"
      for n in range(0, len(words), 100)
    ]
  return "".join(lines)


def shapes(tree: Any, where: Any) -> Any:
  """Returns the shapes of arrays, placed on the devices by a sharding."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
  )


def product_operations(jaxpr: Any) -> int:
  """Returns the floating-point operations of a function's matrix products.

  A scan counts with all of its steps, and a loop whose length is known only at
  run time with one.
  """
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      shape = equation.invars[0].aval.shape
      depth = math.prod(shape[axis] for axis in contracted)
      total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
    times = equation.params.get("length", 1)
    for inner in jax.tree.leaves([*equation.params.values()]):
      inner = getattr(inner, "jaxpr", inner)  # Without its constants.
      if hasattr(inner, "eqns"):
        total += times * product_operations(inner)
  return total


def _placed(batch: dict[str, Any], mesh: Mesh) -> Any:
  """Returns the shapes of a batch, padded and split over the devices."""
  rows = sharding.padded_size(len(batch["inputs"]), mesh)
  padded = jax.tree.map(lambda x: sharding.pad_rows(x, rows), batch)
  return shapes(padded, sharding.by_rows(mesh))


def _widest(batches: Any) -> dict[str, Any]:
  """Returns the batch of the longest windows, of a config with buckets."""
  few = (batches[i] for i in range(min(len(batches), 100)))
  return max(few, key=lambda batch: batch["inputs"].shape[1])


def _carry(experiment: Experiment, rows: int, mesh: Mesh) -> Any:
  """Returns the shapes of the carry of a padded batch."""
  count = sharding.padded_size(rows, mesh)
  carry = jax.eval_shape(lambda: experiment.carry(count))
  return shapes(carry, sharding.by_rows(mesh))


def _params(experiment: Experiment, mesh: Mesh) -> Any:
  return shapes(parameter_shapes(experiment), sharding.replicated(mesh))


def training(config: Config, experiment: Experiment, mesh: Mesh) -> Program:
  """Returns the training step."""
  batches = experiment.batches("train", 0)
  batch = _widest(batches)
  total = config.train.epochs * len(batches)
  schedule = partial(optimizers.schedule, config, len(batches), total)
  optimizer = lambda rate: optimizers.optimizer(config, schedule(rate))
  average = config.train.ema is not None
  start = make_start(experiment, optimizer, batch, mesh, average)
  state = state_shapes(start, mesh)
  step = make_step(experiment, optimizer, mesh, config.train.ema or 1.0)
  rate = jax.ShapeDtypeStruct((), jnp.float32)
  return Program(step, (state, _placed(batch, mesh), rate), _steps(batch))


def evaluating(config: Config, experiment: Experiment, mesh: Mesh) -> Program:
  """Returns the function that adds the figures of a validation batch."""
  del config
  batch = _widest(experiment.batches("validation", 0))
  batch = {k: v for k, v in batch.items() if k not in ("document", "place")}
  zeros, add = adder(totals(experiment), mesh)
  params = _params(experiment, mesh)
  carry = _carry(experiment, len(batch["inputs"]), mesh)
  placed = _placed(batch, mesh)
  sums = shapes(
    jax.eval_shape(zeros, params, carry, placed), sharding.replicated(mesh)
  )
  return Program(add, (params, carry, sums, placed), _steps(batch))


def scoring(
  config: Config, experiment: Experiment, mesh: Mesh
) -> Program | None:
  """Returns the function that scores the targets of a batch."""
  del config
  if experiment.score is None or experiment.reads != "symbol":
    return None
  size = ROWS * mesh.size
  batch = _widest(experiment.batches("validation", 0, batch_size=size))
  batch = {k: v for k, v in batch.items() if k not in ("document", "place")}
  carry = _carry(experiment, len(batch["inputs"]), mesh)
  args = _params(experiment, mesh), carry, _placed(batch, mesh)
  return Program(batch_scorer(experiment.score, mesh), args, _steps(batch))


def predicting(
  config: Config, experiment: Experiment, mesh: Mesh
) -> Program | None:
  """Returns the function that ranks the symbols or labels of a batch."""
  if experiment.predict is None or mesh.size > 1:  # It uses one device.
    return None
  batch = _widest(experiment.batches("validation", 0))
  if experiment.names is None:
    function = calculator(experiment.predict, mesh)
  else:
    function = ranker(experiment.predict, config.predict.top_k, mesh)
  carry = _carry(experiment, len(batch["inputs"]), mesh)
  args = _params(experiment, mesh), carry, _placed(batch, mesh)
  return Program(function, args, _steps(batch))


def sampling(
  likely: bool, config: Config, experiment: Experiment, mesh: Mesh
) -> Program | None:
  """Returns the function that draws symbols, or frames of notes.

  Args:
    likely: draw with top_k and top_p; symbols only.
    config: of the run.
    experiment: of the run.
    mesh: of one device, or there is no program.
  """
  decoder = experiment.decoder
  music = not experiment.writes_text
  if decoder is None or mesh.size > 1 or (music and likely):
    return None
  drawing: dict[str, Any] = {}
  if music:
    drawing = {"how": decoding.NOTES}
  elif likely:
    drawing = {"how": decoding.LIKELY_SYMBOL}
  params = parameter_shapes(experiment)
  carry = jax.eval_shape(lambda: decoder.start(config.sample.streams))
  notes = (NOTES,) if music else ()
  integers = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  symbol_B = integers(config.sample.streams, *notes)
  ended_B = jax.ShapeDtypeStruct(symbol_B.shape, bool)
  number = jax.ShapeDtypeStruct((), jnp.float32)
  limits = decoding.Limits(integers(), number)
  settings = (number, limits) if likely else (number,)
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  state = carry, symbol_B, ended_B, ()
  args = params, state, seed, (settings, ()), integers(), integers()
  placed = shapes(args, sharding.replicated(mesh))
  return Program(drawer(decoder, **drawing, mesh=mesh), placed)


def following(
  config: Config, experiment: Experiment, mesh: Mesh
) -> Program | None:
  """Returns the function that reads one event of one session."""
  del config
  decoder = experiment.decoder
  if decoder is None or "forward" not in experiment.heads or mesh.size > 1:
    return None
  begin_S, advance = advancer(decoder, _FOLDS, mesh)
  place = sharding.replicated(mesh)
  params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((_FOLDS, *x.shape), x.dtype, sharding=place),
    _params(experiment, mesh),
  )
  seen = np.ones((_FOLDS, len(experiment.vocabularies["symbols"])), bool)
  models = Ensemble(params, shapes(seen, place))
  event = np.zeros((1, 1), np.int32), np.ones(1, np.int32)
  return Program(advance, (models, *shapes((begin_S[None], *event), place)))


def _steps(batch: dict[str, Any]) -> tuple[int, int]:
  letters = batch.get("letters")
  width = 0 if letters is None else letters.shape[-1]
  return batch["inputs"].shape[1], width


PROGRAMS: dict[str, Callable[[Config, Experiment, Mesh], Program | None]] = {
  "train": training,
  "evaluate": evaluating,
  "score": scoring,
  "predict": predicting,
  "sample": partial(sampling, False),
  "sample_likely": partial(sampling, True),
  "follow": following,
}
