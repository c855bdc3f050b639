"""A model as a file of tensors with the names of torch.nn, and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.exporting import network as network_lib
from seqrnn.exporting.network import Network
from seqrnn.runtime import files
from seqrnn.training.checkpoint import Position, open_checkpoints, steps
from seqrnn.training.setup import write_record

FILE = "model.safetensors"
_TYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": jnp.bfloat16,
}
# Fields of the exported run that would be untrue of the new one.
_UNTRUE = (
  *("checkpoint.step", "model.embedding_path", "model.parameters"),
  *("train.start_from", "train.freeze"),
)


def encoded(
  experiment: Experiment, config: Config, params: Params, about: dict[str, str]
) -> bytes:
  """The content of a file with the tensors of a model.

  Args:
    experiment: the task.
    config: of the run.
    params: of the checkpoint.
    about: more entries of the file's metadata.

  Raises:
    UserError: a part has no place in the file.
  """
  tensors, arguments = _named(experiment, config, params)
  tensors = {name: tensor.astype("f4") for name, tensor in tensors.items()}
  return encode(tensors, {**arguments, **about})


def encode(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
  """The content of a file in the format safetensors, the same each time.

  The package safetensors writes the metadata in a random order.
  """
  types = {np.dtype(dtype): name for name, dtype in _TYPES.items()}
  header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
  parts, end = [], 0
  for name, tensor in sorted(tensors.items()):
    parts.append(tensor.tobytes())
    begin, end = end, end + tensor.nbytes
    header[name] = {
      "dtype": types[tensor.dtype],
      "shape": tensor.shape,
      "data_offsets": [begin, end],
    }
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # Tensors are aligned.
  return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _named(
  experiment: Experiment, config: Config, params: Params
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """The tensors by their names, and the metadata of their layers.

  The names are those of torch.nn if it has such layers, else the parameters'.
  """
  if network_lib.is_native(config.model, params):
    network = network_lib.parts(experiment, config, params)
    return state(network), metadata(network)
  leaves = jax.tree.leaves_with_path(params)
  names = {".".join(str(key.key) for key in path): x for path, x in leaves}
  return names, {"format": "seqrnn"}


def metadata(network: Network) -> dict[str, str]:
  """The arguments of the layers, which the tensors lack, as strings."""
  first = network.first
  arguments = {
    "format": "pt",
    "layer": first.kind,
    "hidden_size": str(first.hidden_size),
    "num_layers": str(len(next(iter(network.stacks.values())))),
    "bidirectional": str(network.two_ways).lower(),
    "tied": str(network.tied).lower(),
    "pooling": network.pooling,
  }
  if first.kind == "RNN":
    arguments["nonlinearity"] = "relu" if first.relu else "tanh"
  return arguments


def state(network: Network) -> dict[str, np.ndarray]:
  """The tensors by the names that modules of torch.nn give them.

  A head of tied weights has no weight of its own.

  Raises:
    UserError: two directions are merged in a way that torch.nn lacks.
  """
  if network.two_ways and network.merge != "concat":
    raise UserError(
      f"config.export.format='safetensors' with model.merge={network.merge!r}:"
      " must be 'concat', as in torch.nn; onnx has sum and mean"
    )
  tensors = {}
  if network.embedding_VD is not None:
    tensors["embedding.weight"] = network.embedding_VD
  for stack, layers in network.stacks.items():
    for depth, ways in enumerate(layers):
      for way, suffix in zip(ways, ("", "_reverse"), strict=False):
        place = f"l{depth}{suffix}"
        tensors |= {
          f"{stack}.weight_ih_{place}": way.input_KD,
          f"{stack}.weight_hh_{place}": way.recurrent_KH,
          f"{stack}.bias_ih_{place}": way.input_bias_K,
          f"{stack}.bias_hh_{place}": way.recurrent_bias_K,
        }
  for name, (weight, bias) in network.heads.items():
    if not network.tied:
      tensors[f"{name}.weight"] = weight
    tensors[f"{name}.bias"] = bias
  return tensors


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
  params = _params(folder / FILE, experiment, config)
  workdir.mkdir(parents=True, exist_ok=True)
  _write_checkpoint(params, workdir, 1)
  write_record(config, experiment, workdir)


def _write_checkpoint(params: Params, workdir: Path, step: int):
  with open_checkpoints(workdir) as checkpoints:
    position = Position(step=step, best_step=step)
    optimizer = {"leaves": [jnp.zeros((), jnp.int32)]}
    checkpoints.save(params, optimizer, position)
    checkpoints.wait()


def complete(build: Callable[..., Experiment], workdir: Path):
  """Writes the checkpoints of a run of the zoo and of its folds, at first.

  Args:
    build: makes the experiment.
    workdir: of the run, as `command.zoo_run` copies it.
  """
  folders = [workdir, *workdir.glob("folds/*")]
  lacks = lambda folder: (
    (folder / FILE).exists() and not steps(folder / "checkpoints")
  )
  if not any(map(lacks, folders)):
    return
  # Another process may write them.
  with files.locked(workdir / ".zoo.lock", "completed", wait=True):
    for folder in filter(lacks, folders):
      _complete(build, folder)


def _complete(build: Callable[..., Experiment], folder: Path):
  from safetensors import safe_open

  path = folder / FILE
  files.verify_file(path)
  config = config_lib.read_run(folder)
  experiment = build(config, vocabulary.load(folder / "vocabulary.json"))
  params = _params(path, experiment, config)
  with safe_open(path, "numpy") as file:
    _write_checkpoint(params, folder, int(file.metadata()["step"]))


def _load_tensors(path: Path) -> dict[str, np.ndarray]:
  from safetensors import SafetensorError, deserialize

  try:
    parts = deserialize(path.read_bytes())
    return {
      name: np.frombuffer(part["data"], _TYPES[part["dtype"]])
      .reshape(part["shape"])
      .astype(np.float32)
      for name, part in parts
    }
  except (OSError, SafetensorError, KeyError) as error:
    raise UserError(f"{path}: cannot be read: {error}") from None


def _params(path: Path, experiment: Experiment, config: Config) -> Params:
  """The parameters of a model from its tensors.

  The places of the parameters, 1, 2, ..., are exported in place of them. So
  each number of a tensor has a place; 0 is that of a bias that is always 0.
  """
  leaves, tree = jax.tree.flatten(shapes(experiment))
  starts = np.cumsum([1, *(leaf.size for leaf in leaves)])
  places = tree.unflatten(
    [
      np.arange(start, start + leaf.size).reshape(leaf.shape)
      for start, leaf in zip(starts, leaves, strict=False)
    ]
  )
  wanted, _ = _named(experiment, config, places)
  tensors, values = _load_tensors(path), np.zeros(starts[-1], np.float32)
  for name, place in wanted.items():
    if name not in tensors:
      raise UserError(f"{path}: has no tensor {name!r}, which the model needs")
    tensor = tensors[name]
    if tensor.shape != place.shape or not np.isfinite(tensor).all():
      raise UserError(
        f"{path}: {name} has the shape {tensor.shape}; it must have"
        f" {place.shape} and finite values"
      )
    if "bias_hh" in name:  # PyTorch adds it to the other bias.
      other = wanted[name.replace("bias_hh", "bias_ih")]
      place = np.where(place == 0, other, place)
    values[place] += tensor
  if unread := tensors.keys() - wanted.keys():
    raise UserError(
      f"{path}: {', '.join(sorted(unread))}: the model of config.json has no"
      " such tensor"
    )
  return jax.tree.map(lambda place: jnp.asarray(values[place]), places)
