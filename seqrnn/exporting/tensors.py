"""A model as a file of tensors with the names of torch.nn, and back."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Build, Experiment, Params, shapes
from seqrnn.exporting import network as network_lib
from seqrnn.exporting.network import Network, Operator
from seqrnn.models.network import fits_wide
from seqrnn.runtime import files
from seqrnn.training.checkpoint import Position, steps
from seqrnn.training.checkpoint_writer import open_checkpoints
from seqrnn.training.setup import write_record

FILE = "model.safetensors"
_TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": jnp.bfloat16}
# Fields of the exported run that do not describe the new one.
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
  # Contiguous, and unlike those of np.ascontiguousarray also without axes.
  tensors = {name: np.array(x, "f4", order="C") for name, x in tensors.items()}
  return encode(tensors, {**arguments, **about})


def encode(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
  """The content of a file in the format safetensors, the same each time.

  The package safetensors writes the metadata in a random order.
  """
  from safetensors.numpy import save

  content = save(tensors)
  size = int.from_bytes(content[:8], "little")
  header = {"__metadata__": dict(sorted(metadata.items()))}
  text = json.dumps(header | json.loads(content[8:][:size])).encode()
  text += b" " * (-len(text) % 8)  # Tensors are aligned.
  return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _named(
  experiment: Experiment, config: Config, params: Params
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """The tensors by their names, and the metadata of their layers.

  The names are those of torch.nn if it has such layers, else the parameters'.
  """
  if not network_lib.foreign(config.model, params):
    network = network_lib.network_of(experiment, config, params)
    return state_dict(network), metadata(network)
  leaves = jax.tree.leaves_with_path(params)
  return {_dotted(path): x for path, x in leaves}, {"format": "seqrnn"}


def _dotted(path: KeyPath) -> str:
  return jax.tree_util.keystr(path, simple=True, separator=".")


def metadata(network: Network) -> dict[str, str]:
  """The arguments of the layers, which the tensors lack, as strings."""
  first = network.first
  arguments = {
    "format": "pt",
    "layer": first.layer,
    "hidden_size": str(first.hidden_size),
    "num_layers": str(len(next(iter(network.stacks.values())))),
    "bidirectional": str(network.two_ways).lower(),
    "tied": str(network.tied).lower(),
    "pooling": network.pooling,
  }
  if first.layer == "RNN":
    arguments["nonlinearity"] = "relu" if first.relu else "tanh"
  return arguments


def state_dict(network: Network) -> dict[str, np.ndarray]:
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
      for n, way in enumerate(ways):
        tensors |= zip(_layer_names(stack, depth, n), way[1:5], strict=True)
  for name, (weight, bias) in network.heads.items():
    if not network.tied:
      tensors[f"{name}.weight"] = weight
    tensors[f"{name}.bias"] = bias
  return tensors


def _layer_names(stack: str, depth: int, way: int) -> list[str]:
  """The names of a layer's tensors in torch.nn, in the order of Operator."""
  end = f"l{depth}{'_reverse' * way}"
  names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
  return [f"{stack}.{name}_{end}" for name in names]


def _from_state_dict(tensors: dict[str, np.ndarray], like: Params) -> Params:
  """The parameters of a model, as `like` has them: inverts `state_dict`."""
  params = jax.tree.map(lambda x: x, like)
  for stack, layers in network_lib.cells_of(params["body"]).items():
    for depth, ways in enumerate(layers):
      for n, cell in enumerate(ways):
        W, R, b, c = (tensors[x] for x in _layer_names(stack, depth, n))
        cell |= network_lib.cell_params(Operator("", W, R, b, c), cell)
  for name in params.keys() & network_lib.HEADS:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    params[name] = {"kernel": weight.T, "bias": bias}
  if "embedding" in params:
    params["embedding"] = {"embedding": tensors["embedding.weight"]}
  if "head_bias" in params:
    params["head_bias"] = tensors["head.bias"]
  return params


def make_run(build: Build, folder: Path, workdir: Path):
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
  fields = {name: flat[name] for name in _UNTRUE}
  if config.model.wide and not fits_wide(config, weights=1):
    # Another run, or word vectors, had it learn together with the layers.
    fields |= {"train.choice": "best", "train.refit": False}
  config.update_from_flattened_dict(fields)
  config_lib.check(config)
  experiment = build(config, vocabulary.load(folder / "vocabulary.json"))
  params = read_params(folder / FILE, experiment, config)
  workdir.mkdir(parents=True, exist_ok=True)
  _write_checkpoint(params, workdir, 1)
  write_record(config, experiment, workdir)


def _write_checkpoint(params: Params, workdir: Path, step: int):
  with open_checkpoints(workdir) as checkpoints:
    position = Position(step=step, best_step=step)
    optimizer = {"leaves": [jnp.zeros((), jnp.int32)]}
    checkpoints.save(params, optimizer, position)
    checkpoints.wait()


def complete(build: Build, workdir: Path):
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
  # Another process may be writing them.
  with files.locked(workdir / ".zoo.lock", "completed", wait=True):
    for folder in filter(lacks, folders):
      _complete(build, folder)


def _complete(build: Build, folder: Path):
  from safetensors import safe_open

  path = folder / FILE
  files.verify_file(path)
  config = config_lib.read_run(folder)
  experiment = build(config, vocabulary.load(folder / "vocabulary.json"))
  params = read_params(path, experiment, config)
  with safe_open(path, "numpy") as file:
    _write_checkpoint(params, folder, int(file.metadata()["step"]))


def _load_tensors(path: Path) -> dict[str, np.ndarray]:
  from safetensors import SafetensorError, deserialize

  try:
    return {
      name: np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]])
      .reshape(tensor["shape"])
      .astype(np.float32)
      for name, tensor in deserialize(path.read_bytes())
    }
  except (OSError, SafetensorError, KeyError) as error:
    raise UserError(f"{path}: cannot be read: {error}") from None


def read_params(path: Path, experiment: Experiment, config: Config) -> Params:
  """The parameters of a model from a file of its tensors.

  Raises:
    UserError: the file cannot be read, or the tensors are not the model's.
  """
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(experiment))
  wanted, _ = _named(experiment, config, zeros)
  tensors = _load_tensors(path)
  for name, zero in wanted.items():
    if name not in tensors:
      raise UserError(f"{path}: has no tensor {name!r}, which the model needs")
    tensor = tensors[name]
    if tensor.shape != zero.shape or not np.isfinite(tensor).all():
      raise UserError(
        f"{path}: {name} has the shape {tensor.shape}; it must have"
        f" {zero.shape} and finite values"
      )
  if unread := tensors.keys() - wanted.keys():
    raise UserError(
      f"{path}: {', '.join(sorted(unread))}: the model of config.json has no"
      " such tensor"
    )
  if not network_lib.foreign(config.model, zeros):
    params = _from_state_dict(tensors, zeros)
  else:
    params = jax.tree.map_with_path(lambda at, _: tensors[_dotted(at)], zeros)
  return jax.tree.map(jnp.asarray, params)
