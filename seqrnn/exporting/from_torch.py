"""A run from the tensors of a PyTorch model and its vocabulary."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from seqrnn.data import vocabulary
from seqrnn.data.vocabulary import RESERVED, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.exporting import tensors as tensors_lib
from seqrnn.runtime import files
from seqrnn.runtime.checkpoint_writer import Checkpoints
from seqrnn.settings import config as config_lib
from seqrnn.settings import recipes
from seqrnn.settings.config import Config
from seqrnn.settings.overrides import find_field
from seqrnn.training.fit import locked, write_record

Given = str | os.PathLike[str] | ConfigDict | None
Symbols = str | os.PathLike[str] | Sequence[str] | Mapping[str, Any]
_LIMIT = 2**26  # Bytes of a vocabulary.
# The bias of an output that the model does not have: its probability is 0.
_NEVER = -50.0
# Cell -> others with the same tensors, which a config may name.
_ALSO = {"lstm": ("odyssey_np",), "rnn_tanh": ("rnn_relu",)}
_STEP = 1  # Of the checkpoint; there is none of step 0.
# Fields of training are kept, for new runs with this config, except those that
# would be untrue of this run. With zoneout its outputs would not be PyTorch's.
_DEFAULT = (
  *("model.zoneout_hidden", "model.zoneout_cell", "model.embedding_path"),
  *("train.start_from", "train.freeze", "train.unfreeze_every"),
  *("data.pretrain_path", "checkpoint.step"),
)


def make_run(
  build: Callable[..., Experiment],
  weights: Any,
  symbols: Symbols,
  workdir: Path,
  config: Given,
  settings: Mapping[str, Any],
):
  """Writes a run; `seqrnn.from_torch` explains the arguments.

  Raises:
    UserError: a file cannot be read, the tensors are not those of such a model,
      or a setting differs from them.
  """
  if (workdir / "config.json").exists():
    raise UserError(f"workdir={str(workdir)!r}: holds a run; name another")
  source, found = tensors_lib.read(weights)
  parts = tensors_lib.find_parts(source, found)
  resolved, given = _config(config, settings)
  defaults = config_lib.flat(config_lib.defaults())
  _put(resolved, given, tensors_lib.fields(parts), "the tensors have")
  untrained = {name: defaults[name] for name in _DEFAULT}
  _put(resolved, given, untrained, "a run of a PyTorch model has")
  known = _vocabularies(symbols, resolved.data.unit)
  read = known["symbols"]
  plain = parts.inputs == len(read.symbols)
  if not plain and parts.inputs != len(read):
    raise UserError(
      f"{source}: reads {parts.inputs} symbols; the vocabulary has"
      f" {len(read.symbols)}: they must be as many, or {len(RESERVED)} less, if"
      " the first ids are reserved as in an export"
    )
  if plain:
    found = {"data.boundaries": False}
    _put(resolved, given, found, "a model without reserved symbols has")
    reserve = tuple(name for name in parts.heads if "labels" not in known)
    parts = tensors_lib.with_reserved(parts, len(RESERVED), _NEVER, reserve)
  _put(resolved, given, {"data.unit": read.unit}, "the vocabulary has")
  config_lib.expand(resolved)
  config_lib.check(resolved)
  experiment = build(resolved, known)
  params = _params(parts, experiment, source)
  files.make_workdir(workdir)
  with (
    locked(workdir) as check,
    Checkpoints(workdir / "checkpoints", check=check) as checkpoints,
  ):
    position = {"step": _STEP, "best_step": _STEP}
    rest = {"leaves": [jnp.zeros((), jnp.int32)]}
    checkpoints.save(_STEP, params, rest, position, _STEP)
    checkpoints.wait()
    write_record(resolved, experiment, workdir)


def _config(
  given: Given, settings: Mapping[str, Any]
) -> tuple[Config, set[str]]:
  """The config with the settings, and the fields that these are.

  Raises:
    UserError: there is no such field.
  """
  config = config_lib.defaults()
  if isinstance(given, ConfigDict):
    fields = config_lib.flat(given)
    config = config_lib.with_fields(Path("ConfigDict"), fields, config)
  elif given is not None:
    config = config_lib.read(recipes.find(os.fspath(given)), config)
  config, named = copy.deepcopy(config), set()
  for name, value in settings.items():
    field = find_field(name)
    if field is None:
      raise UserError(recipes.no_such_field(name))
    config_lib.override(config, field, config_lib.text(value))
    named.add(field)
  return config, named


def _put(config: Config, settings: set[str], found: dict[str, Any], why: str):
  """Sets the fields that were found, as `why` says.

  Raises:
    UserError: one of the settings differs from them.
  """
  given = config_lib.flat(config)
  for field, value in found.items():
    if given[field] in _ALSO.get(value, ()):
      continue
    if field in settings and given[field] != value:
      raise UserError(f"config.{field}={given[field]!r}: {why} {value!r}")
    config.update_from_flattened_dict({field: value})


def _vocabularies(given: Symbols, unit: str) -> dict[str, Vocabulary]:
  """The vocabularies that a file or a value names.

  Args:
    given: a path of JSON, or what is in such a file.
    unit: of symbols without one.

  Raises:
    UserError: the value is not one of those that the message names.
  """
  source = "vocabulary"
  if isinstance(given, str | os.PathLike):
    source = os.path.expanduser(given)
    try:
      given = files.read_json(Path(source), _LIMIT)
    except OSError as error:
      raise UserError(f"{source}: {error.strerror or error}") from None
  content: Any = given
  if not _is_named(content):
    content = {"symbols": content}
  made = {}
  for name, value in content.items():
    if not isinstance(value, dict) or not {"unit", "symbols"} <= set(value):
      own = unit if name == "symbols" else "id"
      value = {"unit": own, "symbols": _in_order(value, source)}
    if reason := vocabulary.fault(value):
      raise UserError(f"{source}: vocabulary {name!r} {reason}")
    made[name] = vocabulary.of_fields(value)
  return made


def _is_named(content: Any) -> bool:
  """Whether it is an object of vocabularies, not one of symbols."""
  symbols = content.get("symbols") if isinstance(content, Mapping) else None
  return isinstance(symbols, list | tuple | dict)


def _in_order(value: Any, source: str) -> list[Any]:
  """The symbols of a list, or of an object symbol -> id, by their ids."""
  if isinstance(value, list | tuple):
    return list(value)
  if isinstance(value, Mapping):
    ids = list(value.values())
    if all(type(i) is int for i in ids) and sorted(ids) == [*range(len(ids))]:
      return sorted(value, key=value.__getitem__)
  raise UserError(
    f"{source}: must be a list of symbols in the order of their ids, an object"
    " symbol -> id with the ids from 0, or a vocabulary.json"
  )


def _params(
  parts: tensors_lib.Parts, experiment: Experiment, source: str
) -> Params:
  """The parameters of the experiment, from those that were found.

  Raises:
    UserError: the experiment has other parameters.
  """
  own = tensors_lib.params(parts)
  wanted = shapes(experiment)
  leaves = lambda tree: {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  have, need = leaves(own), leaves(wanted)
  for name in sorted(have.keys() | need.keys()):
    shape = [
      leaf.shape if (leaf := tree.get(name)) is not None else None
      for tree in (have, need)
    ]
    if shape[0] != shape[1]:
      raise UserError(
        f"{source}: gives {name} the shape {shape[0]}; the model of this config"
        f" has {shape[1]}"
      )
  return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), own)
