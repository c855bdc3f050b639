"""A run from the files of an export."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.data import vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.exporting import torch_names
from seqrnn.exporting.network import STACK, TOWERS
from seqrnn.runtime import files
from seqrnn.training.checkpoint import Position, open_checkpoints
from seqrnn.training.setup import write_record

_STEP = 1  # Of the checkpoint.
# Fields of the exported run that would be untrue of the new one.
_UNTRUE = (
  *("checkpoint.step", "model.embedding_path", "model.parameters"),
  *("train.start_from", "train.freeze"),
)


def make_run(build: Callable[..., Experiment], folder: Path, workdir: Path):
  """Writes a run with the parameters of an export in safetensors.

  Args:
    build: makes the experiment.
    folder: has model.safetensors, config.json and vocabulary.json.
    workdir: of the new run.

  Raises:
    UserError: a file cannot be read, or the tensors are not those of the model
      of config.json.
  """
  if (workdir / "config.json").exists():
    raise UserError(f"workdir={str(workdir)!r}: holds a run; name another")
  defaults = config_lib.defaults()
  config = config_lib.read_config(folder / "config.json")
  flat = config_lib.flat(defaults)
  config.update_from_flattened_dict({name: flat[name] for name in _UNTRUE})
  config_lib.check(config)
  experiment = build(config, vocabulary.load(folder / "vocabulary.json"))
  path = folder / torch_names.FILE
  params = _params(path, _load_tensors(path), shapes(experiment))
  files.make_workdir(workdir)
  with open_checkpoints(workdir) as checkpoints:
    position = Position(step=_STEP, best_step=_STEP)
    optimizer = {"leaves": [jnp.zeros((), jnp.int32)]}
    checkpoints.save(params, optimizer, position)
    checkpoints.wait()
    write_record(config, experiment, workdir)


def _load_tensors(path: Path) -> dict[str, np.ndarray]:
  try:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
  except ImportError:
    raise UserError(
      f"{path}: needs the package safetensors; pip install 'seqrnn[export]'"
    ) from None
  # An AttributeError is of a type that NumPy lacks.
  errors = OSError, SafetensorError, AttributeError, KeyError, TypeError
  try:
    return load_file(path)
  except errors as error:
    raise UserError(f"{path}: cannot be read: {error}") from None


def _params(
  path: Path, tensors: dict[str, np.ndarray], wanted: Params
) -> Params:
  """The parameters with the shapes of `wanted`: inverts `torch_names.state`."""
  unread = dict(tensors)

  def tensor(name: str) -> np.ndarray:
    unread.pop(name, None)
    if name not in tensors:
      raise UserError(f"{path}: has no tensor {name!r}, which the model needs")
    return np.asarray(tensors[name], np.float32)

  def parameter(keys, leaf) -> jax.Array:
    keys = [key.key for key in keys]
    if keys[0] == "body":
      value = _of_cell(keys, tensor)
    elif keys == ["head_bias"]:
      value = tensor("head.bias")
    else:  # Of the embedding, or of a head.
      weight = {"kernel": "weight", "embedding": "weight"}
      value = tensor(f"{keys[0]}.{weight.get(keys[1], keys[1])}")
      value = value.T if keys[1] == "kernel" else value
    if value.shape != leaf.shape or not np.isfinite(value).all():
      raise UserError(
        f"{path}: gives {'.'.join(keys)} the shape {value.shape}; it must have"
        f" {leaf.shape} and finite values"
      )
    return jnp.asarray(value)

  params = jax.tree_util.tree_map_with_path(parameter, wanted)
  if unread:
    raise UserError(
      f"{path}: {', '.join(sorted(unread))}: the model of config.json has no"
      " such tensor"
    )
  return params


def _of_cell(keys: list[str], tensor: Callable[[str], np.ndarray]):
  """A parameter of a cell; keys are body, its way, its layer, and so on."""
  tower = "tower" in keys
  stack = TOWERS[keys[1]] if tower else STACK
  [depth] = (
    key.removeprefix("layers_") for key in keys if key.startswith("layers_")
  )
  place = f"l{depth}{'_reverse' * ('backward' in keys and not tower)}"
  of = lambda kind: tensor(f"{stack}.{kind}_{place}")
  name = keys[keys.index("cell") + 1]
  if name.endswith("kernel"):
    return of("weight_ih" if name == "input_kernel" else "weight_hh").T
  input_bias, recurrent_bias = of("bias_ih"), of("bias_hh")
  H = of("weight_hh").shape[1]
  if name == "reset_bias":
    return recurrent_bias[2 * H :]
  bias = input_bias + recurrent_bias
  if len(bias) == 3 * H:  # The candidate of a GRU has both biases.
    bias[2 * H :] = input_bias[2 * H :]
  return bias
