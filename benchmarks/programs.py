"""The jitted programs of a config, for devices that need not be here.

  mesh = programs.compile_mesh("v5e:2x2")     # needs libtpu, but no TPU
  function, args, steps = programs.training(config, experiment, mesh)
  compiled = function.lower(*args).compile()

They are the functions that the modes call, traced for the devices of the mesh.
Arguments are shapes, so no array is made.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.experiment import Experiment
from seqrnn.experiment import shapes as parameter_shapes
from seqrnn.runtime import sharding
from seqrnn.sampling.sampler import Streams, drawer
from seqrnn.scoring.scorer import ROWS
from seqrnn.training.step import Length, programs

_ROOT = Path(__file__).resolve().parents[1]
_H100 = _ROOT / "benchmarks" / "h100.txtpb"


class Program(NamedTuple):
  """A jitted function and the shapes of its arguments.

  Attributes:
    function: jitted for the mesh it was made with.
    args: a tree of jax.ShapeDtypeStruct.
    steps: the time steps of a layer, 0 without.
  """

  function: Any
  args: tuple[Any, ...]
  steps: int = 0


def compile_mesh(target: str) -> Mesh:
  """Returns a mesh of devices to compile for, none of which has to be here.

  Args:
    target: h100, v5e:1x1 or v5e:2x2, the chips of a TPU.

  Raises:
    RuntimeError: the package that compiles for the device is not installed.
  """
  if target == "h100":
    topology = topologies.get_topology_desc(
      platform="cuda", target_config=_H100.read_text(), topology="1x1x1"
    )
  else:
    one = {"chip_config_name": "default", "chips_per_host_bounds": (1, 1, 1)}
    options: dict[str, Any] = one if target.endswith("1x1") else {}
    topology = topologies.get_topology_desc(target, platform="tpu", **options)
  devices = np.array(topology.devices)
  return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def read_config(name: str, fields: dict[str, Any]) -> Config:
  """Returns a config of configs/, with other values of some fields."""
  config = config_lib.read_config(_ROOT / "configs" / f"{name}.py")
  for field, value in fields.items():
    config_lib.override(config, field, str(value))
  config_lib.check(config)
  return config


def shapes(tree: Any, where: Any) -> Any:
  """Returns the shapes of arrays, placed on the devices by a sharding."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
  )


def _placed(batch: dict[str, Any], mesh: Mesh) -> Any:
  """Returns the shapes of a batch, padded and split over the devices."""
  rows = sharding.padded_size(len(batch["inputs"]), mesh)
  padded = jax.tree.map(lambda x: sharding.pad_rows(x, rows), batch)
  return shapes(padded, sharding.by_rows(mesh))


def _widest(batches: Any) -> dict[str, Any]:
  """Returns the batch of the longest windows, of a config with buckets."""
  few = (batches[i] for i in range(min(len(batches), 100)))
  return max(few, key=lambda batch: batch["inputs"].shape[1])


def training(config: Config, experiment: Experiment, mesh: Mesh) -> Program:
  """Returns the training step."""
  batches = experiment.batches("train", 0)
  batch = _widest(batches)
  step, start = programs(experiment, config, mesh, None)
  state = start.eval_shape(np.uint32(0))
  number = jax.ShapeDtypeStruct((), jnp.float32)
  length = Length(number, number, number)
  args = state, _placed(batch, mesh), length
  return Program(step, args, batch["inputs"].shape[1])


def scoring(
  config: Config, experiment: Experiment, mesh: Mesh
) -> Program | None:
  """Returns the function that scores the targets of a batch."""
  del config
  if experiment.score is None:
    return None
  size = ROWS * mesh.size
  batch = _widest(experiment.batches("validation", 0, batch_size=size))
  batch = {k: v for k, v in batch.items() if k not in ("document", "place")}
  count = sharding.padded_size(len(batch["inputs"]), mesh)
  carry = jax.eval_shape(lambda: experiment.carry(count))
  params = shapes(parameter_shapes(experiment), sharding.replicated(mesh))
  args = params, shapes(carry, sharding.by_rows(mesh)), _placed(batch, mesh)
  by_rows = sharding.by_rows(mesh)
  function = sharding.jit(experiment.score, mesh, out_shardings=by_rows)
  return Program(function, args, batch["inputs"].shape[1])


def sampling(
  config: Config, experiment: Experiment, mesh: Mesh
) -> Program | None:
  """Returns the function that draws symbols, on one device."""
  decoder = experiment.decoder
  if decoder is None or mesh.size > 1:
    return None
  params = parameter_shapes(experiment)
  B, integer = config.sample.streams, jax.ShapeDtypeStruct((), jnp.int32)
  none_B = jnp.zeros(B, jnp.int32)
  begin = lambda: Streams(decoder.start(B), none_B, (), none_B > 0)
  temperature = jax.ShapeDtypeStruct((), jnp.float32)
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  streams = jax.eval_shape(begin)
  args = params, streams, seed, ((temperature,), ()), integer, integer
  placed = shapes(args, sharding.replicated(mesh))
  return Program(drawer(decoder, mesh=mesh), placed)


PROGRAMS: dict[str, Callable[[Config, Experiment, Mesh], Program | None]] = {
  "train": training,
  "score": scoring,
  "sample": sampling,
}
