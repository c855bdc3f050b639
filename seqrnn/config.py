"""Configs: read from JSON, overridden from the command line, checked."""

import copy
import difflib
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from seqrnn.errors import UserError

Config = Any  # A ConfigDict, whose fields no type checker knows.

# Fields that make a run what it is: they cannot change once it has begun.
IDENTITY = (
  "task",
  "seed",
  "data.",
  "model.",
  "train.batch_size",  # The place in the data counts batches.
  "optimizer.name",  # The optimizer's state has the shape
  "optimizer.momentum",  # that these two give it.
)
# Where one of these is set by a flag, it is part of the default workdir's name.
NAMING = (*IDENTITY, "optimizer.", "schedule.")


def flat(config: ConfigDict) -> dict[str, Any]:
  """Every field by its dotted name."""
  fields = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      fields |= {f"{name}.{inner}": v for inner, v in flat(value).items()}
    else:  # JSON has no tuples.
      fields[name] = tuple(value) if isinstance(value, list) else value
  return fields


def locate(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
  """The group and the key of a dotted name.

  Raises:
    UserError: there is no such field, or it is a group.
  """
  group = config
  *path, key = name.split(".")
  for part in path:
    group = group[part] if part in group else None
    if not isinstance(group, ConfigDict):
      break
  if not isinstance(group, ConfigDict) or key not in group:
    known = list(flat(config))
    near = difflib.get_close_matches(name, known, n=1) or [
      field for field in known if field.rpartition(".")[2] == key
    ]
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"config.{name}: no such field{hint}")
  if isinstance(group[key], ConfigDict):
    inside = ", ".join(group[key])
    raise UserError(f"config.{name}: a group of fields, name one: {inside}")
  return group, key


def _parse(text: str, kind: type, value: Any) -> Any:
  if kind is bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
  if kind is int:
    try:
      return int(text)
    except ValueError:
      number = float(text)  # 1e5 is a whole number too.
      if not number.is_integer():
        raise
      return int(number)
  if kind is tuple:
    parts = [part.strip() for part in text.strip("()[] ").split(",")]
    return tuple(type(value[0])(part) for part in parts if part)
  return kind(text)


def override(config: ConfigDict, base: ConfigDict, name: str, text: str):
  """Sets one field from the text of a flag.

  Args:
    config: what is changed.
    base: the defaults; a field that is None there may be emptied by `none`.
    name: the dotted name of the field.
    text: its value.

  Raises:
    UserError: no such field, or a text that is none of its type's.
  """
  group, key = locate(config, name)
  optional = flat(base).get(name, 0) is None
  kind = group.get_type(key)
  if optional and text.lower() == "none":
    group[key] = None
    return
  try:
    group[key] = _parse(text, kind, group[key])
  except (KeyError, ValueError, OverflowError):
    words = {
      bool: "true or false",
      int: "a whole number",
      float: "a number",
      tuple: "numbers separated by commas",
    }
    empty = ", or none" if optional else ""
    raise UserError(
      f"config.{name}={text!r}: must be {words[kind]}{empty}"
    ) from None


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """The fields of a JSON config, as nested dicts.

  Raises:
    UserError: the file is missing or holds no config.
  """
  try:
    fields = json.loads(Path(path).read_text("utf-8"))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror or error}") from None
  except ValueError as error:
    raise UserError(f"{path}: not JSON ({error})") from None
  if not isinstance(fields, dict):
    raise UserError(f"{path}: not a config, which is a JSON object of fields")
  return fields


def read(path: str | os.PathLike, base: ConfigDict) -> ConfigDict:
  """A config from a .py file with get_config(), or from JSON.

  A field that a JSON file lacks keeps the default of the base.

  Raises:
    UserError: a file that is missing or broken, a field that the base does not
      have, a value of another type.
  """
  path = Path(path)
  if path.suffix == ".py":
    return _from_python(path)
  config = copy.deepcopy(base)
  for name, value in flat(ConfigDict(read_json(path))).items():
    try:
      group, key = locate(config, name)
    except UserError as error:
      raise UserError(f"{path}: {error}") from None
    kind = group.get_type(key)
    if kind is float and type(value) is int:
      value = float(value)
    optional = value is None and flat(base)[name] is None
    if type(value) is not kind and not optional:
      raise UserError(
        f"{path}: config.{name}={value!r}: must be of type {kind.__name__}"
      )
    group[key] = value
  return config


def _from_python(path: Path) -> ConfigDict:
  if not path.is_file():
    raise UserError(f"--config={path}: no such file")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec is not None and spec.loader is not None, "it ends in .py"
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config()
  except Exception as error:  # The file is the user's, and so is the mistake.
    reason = str(error.args[0] if error.args else error).split("\n")[0]
    raise UserError(
      f"--config={path}: {type(error).__name__}: {reason}"
    ) from None
  if not isinstance(config, ConfigDict):
    raise UserError(f"--config={path}: get_config() must return a ConfigDict")
  return config


def run_name(
  name: str,
  config: ConfigDict,
  overrides: Iterable[tuple[str, str]],
) -> str:
  """The default name of a run: the config's, with the fields flags changed."""
  parts = [name]
  for field, text in sorted(dict(overrides).items()):
    if field.startswith(NAMING) and str(flat(config).get(field)) != text:
      parts.append(f"{field}={text}")
  name = "-".join(parts).replace("/", "_")
  if len(name.encode()) > 200:  # Most file systems end at 255 bytes.
    digest = hashlib.sha256(name.encode()).hexdigest()
    name = f"{name[:100]}-{digest[:12]}"
  return name


def refuse_other_model(trained: ConfigDict, config: ConfigDict, workdir: Path):
  """What was trained cannot be used as something else.

  Raises:
    UserError: a field that shapes the model differs from the run's own.
  """
  shaping = ("task", "model.", "data.unit", "data.mapping", "data.boundaries")
  found = differences(trained, config, shaping)
  if found:
    raise UserError(f"{workdir}: was trained otherwise, {'; '.join(found)}")


def save(config: ConfigDict, path: Path):
  """Writes the config as JSON, whole or not at all."""
  temporary = path.with_suffix(".tmp")
  temporary.write_text(config.to_json(indent=2) + "\n", "utf-8")
  os.replace(temporary, path)


def differences(
  old: ConfigDict, new: ConfigDict, prefixes: Iterable[str] = ("",)
) -> list[str]:
  """The fields that differ, each as `name: old -> new`."""
  a, b = flat(old), flat(new)
  return [
    f"{name}: {a.get(name)!r} -> {b.get(name)!r}"
    for name in sorted(a | b)
    if a.get(name) != b.get(name) and name.startswith(tuple(prefixes))
  ]


def _choice(*names: str) -> tuple[Callable[[Any], bool], str]:
  return lambda value: value in names, f"must be one of {', '.join(names)}"


_POSITIVE = (lambda v: v > 0, "must be above 0")
_WHOLE = (lambda v: v >= 1, "must be at least 1")
_NATURAL = (lambda v: v >= 0, "must be at least 0")
_SHARE = (lambda v: 0 <= v < 1, "must be from 0 to below 1")
_UP_TO_1 = (lambda v: 0 < v <= 1, "must be above 0 and at most 1")
_SPLITS = _choice("train", "validation", "test")

# What a field may hold, where its type does not say it all.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
  "seed": (lambda v: 0 <= v < 2**32, "must be from 0 to 2**32 - 1"),
  "data.unit": _choice("char", "byte", "word", "id", "session"),
  "data.split": _choice(
    "auto", "documents", "last_documents", "tails", "stream_tails"
  ),
  "data.validation_fraction": _SHARE,
  "data.test_fraction": _SHARE,
  "data.min_count": _WHOLE,
  "data.vocabulary_size": _WHOLE,
  "data.mapping": _choice("many_to_many", "many_to_one"),
  "data.window": _WHOLE,
  "data.step": _WHOLE,
  "data.offset": _NATURAL,
  "model.cell": _choice("lstm", "gru", "rnn_tanh", "rnn_relu"),
  "model.hidden_size": _WHOLE,
  "model.layers": _WHOLE,
  "model.merge": _choice("concat", "sum", "mean"),
  "model.embedding_size": _WHOLE,
  "model.initial_scale": _POSITIVE,
  "model.dropout": _SHARE,
  "model.symbol_dropout": _SHARE,
  "optimizer.name": _choice("rmsprop", "sgd", "adagrad", "adam", "adamw"),
  "optimizer.learning_rate": _POSITIVE,
  "optimizer.decay": _SHARE,
  "optimizer.momentum": _SHARE,
  "optimizer.beta1": _SHARE,
  "optimizer.beta2": _SHARE,
  "optimizer.epsilon": _POSITIVE,
  "optimizer.weight_decay": _NATURAL,
  "optimizer.clip_norm": _POSITIVE,
  "optimizer.clip_value": _POSITIVE,
  "schedule.name": _choice(
    "constant", "exponential", "step", "cosine", "plateau"
  ),
  "schedule.warmup_steps": _NATURAL,
  "schedule.factor": _UP_TO_1,
  "schedule.after": _WHOLE,
  "schedule.every": _WHOLE,
  "schedule.final": (lambda v: 0 <= v <= 1, "must be from 0 to 1"),
  "schedule.patience": _WHOLE,
  "train.batch_size": _WHOLE,
  "train.epochs": _WHOLE,
  "train.max_steps": _WHOLE,
  "train.batches_per_epoch": _WHOLE,
  "train.samples_per_epoch": _WHOLE,
  "train.eval_every": _WHOLE,
  "train.patience": _WHOLE,
  "checkpoint.keep": _WHOLE,
  "checkpoint.every": _WHOLE,
  "checkpoint.step": _NATURAL,
  "evaluate.split": _SPLITS,
  "predict.split": _SPLITS,
  "predict.gap": (lambda v: len(v) > 0, "must not be empty"),
  "predict.top_k": _WHOLE,
  "predict.sequences": _WHOLE,
  "predict.symbols": _WHOLE,
  "sample.temperature": (
    lambda v: len(v) > 0 and all(0 <= t < math.inf for t in v),
    "must be one or several numbers from 0",
  ),
  "sample.length": _WHOLE,
  "sample.streams": _WHOLE,
  "sample.top_k": _WHOLE,
  "sample.top_p": _UP_TO_1,
  "sample.seed": _NATURAL,
}


def check(config: ConfigDict):
  """Refuses values and pairs of values that make no sense.

  Raises:
    UserError: names the first such field, its value and the rule.
  """
  fields = flat(config)
  for name, value in fields.items():
    if isinstance(value, float) and not math.isfinite(value):
      raise UserError(f"config.{name}={value}: must be finite")
    if value is not None and name in RULES and not RULES[name][0](value):
      raise UserError(f"config.{name}={value!r}: {RULES[name][1]}")

  def pair(wrong: bool, *names: str, rule: str):
    if wrong:
      values = ", ".join(f"config.{name}={fields[name]!r}" for name in names)
      raise UserError(f"{values}: {rule}")

  data, train = config.data, config.train
  pair(
    train.batches_per_epoch is not None and train.samples_per_epoch is not None,
    "train.batches_per_epoch",
    "train.samples_per_epoch",
    rule="set one of the two, or neither for all windows",
  )
  pair(
    data.random_offset and data.offset > 0,
    "data.offset",
    "data.random_offset",
    rule="the offset is fixed or random, not both",
  )
  for name in ("data.step", "data.offset", "data.random_offset"):
    pair(
      data.stateful and bool(fields[name]),
      "data.stateful",
      name,
      rule="streams have no step and no offset, they miss nothing",
    )
  pair(
    data.validation_fraction + data.test_fraction >= 1,
    "data.validation_fraction",
    "data.test_fraction",
    rule="together they must leave something to train on",
  )
  pair(
    config.model.tied and config.model.embedding_size is None,
    "model.tied",
    "model.embedding_size",
    rule="tied weights need an embedding",
  )
  nesterov = config.optimizer.nesterov
  pair(
    nesterov and config.optimizer.momentum == 0,
    "optimizer.nesterov",
    "optimizer.momentum",
    rule="Nesterov's is a form of momentum, which must be above 0",
  )
  pair(
    nesterov and config.optimizer.name != "sgd",
    "optimizer.nesterov",
    "optimizer.name",
    rule="only sgd has Nesterov's momentum",
  )
