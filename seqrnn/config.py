"""Configs: read from JSON, overridden from the command line, checked."""

import copy
import ctypes
import difflib
import hashlib
import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from seqrnn.errors import UserError, visible
from seqrnn.runtime import files, manifest

Config = Any  # A ConfigDict, whose fields no type checker knows.

# Fields that make a run what it is: they cannot change once it has begun.
IDENTITY = (
  "task",
  "seed",
  "data.",
  "model.",
  "train.batch_size",  # The place in the data counts batches.
  "optimizer.name",  # The optimizer's state has the shape
  "optimizer.momentum",  # that these two give it,
  "train.ema",  # and whether there is a mean of
  "train.asgd",  # the parameters, these.
)
# Those that parameters and vocabulary rest on.
SHAPE = ("task", "model.", "data.unit", "data.mapping", "data.boundaries")
# All that training rests on, and a search may choose.
TRAINING = (*IDENTITY, "optimizer.", "schedule.", "train.")
# Where a checkpoint may rest on a field that we do not know.
_MEANING = ("task", "seed", "data", "model")
_SPACE = "search.space."
_LIMIT = 2**20  # Bytes of a config; one that a run writes has 2,000.
# Of float32: its largest number, and its smallest that XLA does not take as 0.
_LARGEST = (2 - 2**-23) * 2.0**127
_SMALLEST = 2.0**-126


def defaults() -> Config | None:
  """Those of configs/base.py; None where only the packages are installed."""
  try:
    from configs import base
  except ImportError:
    return None
  return base.get_config()


def flat(config: Config | dict[str, Any]) -> dict[str, Any]:
  """Every field by its dotted name."""
  fields = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict | dict):
      fields |= {f"{name}.{inner}": v for inner, v in flat(value).items()}
    else:  # JSON has no tuples.
      fields[name] = tuple(value) if isinstance(value, list) else value
  return fields


def locate(config: Config, name: str) -> tuple[Config, str]:
  """The group and the key of a dotted name.

  Raises:
    UserError: there is no such field, or it is a group.
  """
  known = flat(config)
  if name not in known:
    inside = [field for field in known if field.startswith(f"{name}.")]
    if inside:
      raise UserError(
        f"config.{name}: a group, name one of {', '.join(inside)}"
      )
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"config.{name}: no such field{hint}")
  *path, key = name.split(".")
  group = config
  for part in path:
    group = group[part]
  return group, key


def override(config: Config, base: Config, name: str, given: str | bool):
  """Sets one field from a flag.

  Args:
    config: what is changed.
    base: the defaults; a field that is None there may be emptied by `none`.
    name: the dotted name of the field.
    given: the flag's text; True or False where it has none.

  Raises:
    UserError: no such field, or a text that is none of its type's.
  """
  group, key = locate(config, name)
  kind = group.get_type(key)
  optional = flat(base)[name] is None
  if isinstance(given, bool):
    if kind is not bool:
      raise UserError(f"config.{name}: needs a value, --config.{name}=VALUE")
    group[key] = given
  elif optional and given.lower() == "none":
    group[key] = None
  else:
    try:
      group[key] = _PARSERS[kind](given)
    except (KeyError, ValueError):
      raise _not_a(kind, optional, name, given) from None


def _not_a(kind: type, optional: bool, name: str, value: Any) -> UserError:
  empty = ", or none" if optional else ""
  return UserError(f"config.{name}={value!r}: must be {_KINDS[kind]}{empty}")


def _integer(text: str) -> int:
  try:
    return int(text)
  except ValueError:
    number = float(text)  # 1e5 is a whole number too.
    if not number.is_integer():
      raise
    return int(number)


def _numbers(text: str) -> tuple[float, ...]:
  parts = text.strip("()[] ").removesuffix(",").split(",")
  return tuple(float(part) for part in parts)


_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_PARSERS: dict[type, Callable[[str], Any]] = {
  str: str,
  bool: lambda text: _TRUTH[text.lower()],
  int: _integer,
  float: float,
  tuple: _numbers,
}
_KINDS = {
  str: "a text",
  bool: "true or false",
  int: "a whole number",
  float: "a number",
  tuple: "numbers separated by commas",
}


def read(path: str | os.PathLike, base: Config) -> Config:
  """A config from a .py file with get_config(), or from JSON.

  A field that it lacks keeps the default of the base.

  Raises:
    UserError: the file is missing or broken, or a field is not one of the
      base or has another type.
  """
  path = Path(path)
  fields = _get_config(path) if path.suffix == ".py" else read_json(path)
  return _filled(path, flat(fields), base)


def _filled(path: Path, fields: dict[str, Any], base: Config) -> Config:
  """The base with the fields of a file."""
  config = copy.deepcopy(base)
  for name, value in fields.items():
    try:
      _assign(config, base, name, value)
    except UserError as error:
      raise UserError(f"{path}: {error}") from None
  return config


def _assign(config: Config, base: Config, name: str, value: Any):
  group, key = locate(config, name)
  kind = group.get_type(key)
  optional = flat(base)[name] is None
  try:
    group[key] = None if optional and value is None else _cast(value, kind)
  except (TypeError, OverflowError):
    raise _not_a(kind, optional, name, value) from None


def _cast(value: Any, kind: type) -> Any:
  """The value where it is of its kind; a whole number is a number too."""
  if kind is float and type(value) is int:
    return float(value)
  if kind is tuple and type(value) is tuple:
    return tuple(_cast(part, float) for part in value)
  if type(value) is not kind:
    raise TypeError
  return value


def read_run(
  workdir: str | os.PathLike, base: Config | None, name: str = "config.json"
) -> Config:
  """The config of a run, from its workdir; another version may have made it.

  A field that it lacks keeps the default of the base. One that we do not know
  is left out and told on stderr, unless a checkpoint may rest on it.

  Args:
    workdir: of the run.
    base: the defaults; None: there are none, and no field may be missing.
    name: of the file.

  Raises:
    UserError: there is none, it is broken, or a field stands in the way.
  """
  path = Path(workdir) / name
  if not path.exists():
    begin = "no run there; train it first"
    if name != "config.json":
      begin = "no search there; begin it with a --config"
    raise UserError(f"--workdir={workdir}: {begin}")
  manifest.warn_if_missing(path)
  manifest.verify(path)
  fields = flat(read_json(path))
  unknown = [name for name in fields if name not in RULES]
  left_out = []
  for name in unknown:
    value = fields.pop(name)
    group, dot, _ = name.partition(".")
    if value is None or value is False:  # It asks for nothing.
      continue
    if not dot or group in _MEANING:
      raise UserError(
        f"{path}: config.{name}={value!r}: this version has no such field, and"
        " the checkpoints may rest on it"
      )
    left_out.append(name)
  if left_out:
    line = f"{path}: left out, for this version has none: {', '.join(left_out)}"
    print(visible(line), file=sys.stderr)
  if base is not None:
    return _filled(path, fields, base)
  for name in RULES:
    if name not in fields and not name.startswith(_SPACE):
      raise UserError(
        f"{path}: config.{name}: is missing, and configs/base.py, which has its"
        " default, cannot be imported; start where run.py is, or add the field"
      )
  return ConfigDict(nested(fields))


def nested(fields: dict[str, Any]) -> dict[str, Any]:
  """Fields by their dotted names, as dicts in dicts."""
  groups: dict[str, Any] = {}
  for name, value in fields.items():
    *parents, key = name.split(".")
    group = groups
    for parent in parents:
      group = group.setdefault(parent, {})
    group[key] = value
  return groups


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """The fields of a JSON config, as nested dicts.

  Raises:
    UserError: the file is missing or holds no config.
  """
  try:
    fields = json.loads(files.read(path, _LIMIT).decode("utf-8"))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror or error}") from None
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: not JSON ({error})") from None
  if not isinstance(fields, dict):
    raise UserError(f"{path}: not a config, which is a JSON object of fields")
  for name, value in fields.items():
    if _too_deep(value, groups=3):  # As search.space.model has.
      raise UserError(
        f"{path}: config.{name}: nested too deeply; a config has fields and"
        " groups of fields"
      )
  return fields


def _too_deep(value: Any, groups: int) -> bool:
  """Whether there is more in a value than fields in so many groups."""
  if isinstance(value, dict):
    inner = value.values()
    return not groups or any(_too_deep(part, groups - 1) for part in inner)
  parts = value if isinstance(value, list) else []
  return any(isinstance(part, list | dict) for part in parts)


def _get_config(path: Path) -> Config:
  if not path.is_file():
    raise UserError(f"--config={path}: no such file")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec is not None and spec.loader is not None, "it ends in .py"
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config()
  except Exception as error:  # The file is the user's, and so is the mistake.
    raise UserError(_fault(path, error)) from None
  if not isinstance(config, ConfigDict):
    raise UserError(f"{path}: get_config() must return a ConfigDict")
  return config


def _fault(path: Path, error: Exception) -> str:
  """Where a config is wrong and why, in a line."""
  name = os.path.abspath(path)
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == name]
  if isinstance(error, SyntaxError) and error.filename == name:
    lines.append(error.lineno)
  where = f"{path}:{lines[-1]}" if lines and lines[-1] else str(path)
  kind = type(error).__name__
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]  # As ml_collections wraps them.
  reason = str(error.args[0] if error.args else error)
  reason = reason.partition(". Other fields present")[0]
  return f"{where}: {kind}: {' '.join(reason.split())}"


def text(value: Any) -> str:
  """A value as it is written in flags."""
  return str(value).lower() if isinstance(value, bool | None) else str(value)


def parse(config: Config, name: str, given: str) -> Any:
  """The value that `text` wrote of a field.

  Raises:
    ValueError: it is none, or there is no such field.
  """
  try:
    group, key = locate(config, name)
    kind = group.get_type(key)
    if kind is not str and given == "none":
      return None
    return _PARSERS[kind](given)
  except (KeyError, UserError) as error:
    raise ValueError(str(error)) from None


def run_name(name: str, old: Config, new: Config) -> str:
  """The default name of a run: the config's, with the fields flags changed."""
  parts = [name]
  for field, (_, value) in changes(old, new, NAMING).items():
    parts.append(f"{field}={text(value)}")
  name = re.sub(r"[/\\\[\]]", "_", "-".join(parts))
  if len(name.encode()) > 200:  # Most file systems end at 255 bytes.
    digest = hashlib.sha256(name.encode()).hexdigest()
    name = f"{name[:100]}-{digest[:12]}"
  return name


def sized(config: Config, run: Config | dict[str, Any]) -> Config:
  """The config, with the hidden size that its run has for `model.parameters`.

  Where the run has another number of parameters, it is as it was.
  """
  fields = flat(run)
  wanted = config.model.parameters
  if wanted is not None and wanted == fields.get("model.parameters"):
    config = copy.deepcopy(config)
    name = "model.hidden_size"
    _assign(config, config, name, fields[name])
  return config


def refuse_other(
  trained: Config, config: Config, workdir: Path, fixed: Iterable[str]
):
  """What was trained cannot be used as something else.

  Raises:
    UserError: a field that begins with one of `fixed` differs.
  """
  found = differences(trained, config, fixed)
  if found:
    raise UserError(
      f"{workdir}: was trained otherwise, {'; '.join(found)}; --workdir alone"
      " takes it as it is"
    )


def refuse_unless(config: Config, plain: dict[str, Any], why: str):
  """A task may leave fields no choice but the plain value that each has here.

  Raises:
    UserError: one has another value.
  """
  fields = flat(config)
  for name, value in plain.items():
    if fields[name] != value:
      raise UserError(
        f"{name}={fields[name]!r} with task={config.task!r}: {why}, it must be"
        f" {value!r}"
      )


def save(config: Config, path: Path):
  """Writes the config as JSON, whole or not at all."""
  with files.atomic_write(path, "wb") as file:
    file.write(encoded(config))


def encoded(config: Config) -> bytes:
  """The config as JSON.

  Of the fields that a search may choose, those that none chooses are left out.
  """
  fields = {
    name: value
    for name, value in flat(config).items()
    if value is not None or not name.startswith(_SPACE)
  }
  return (json.dumps(nested(fields), indent=2) + "\n").encode()


def changes(
  old: Config | dict[str, Any], new: Config, prefixes: Iterable[str] = ("",)
) -> dict[str, tuple[Any, Any]]:
  """The fields that differ, with both values, in order of their names."""
  a, b = flat(old), flat(new)
  for name in a.keys() - b.keys():
    if a[name] is False:  # As None: it asks for what is done without it.
      a[name] = None
  return {
    name: (a.get(name), b.get(name))
    for name in sorted(a | b)
    if a.get(name) != b.get(name) and name.startswith(tuple(prefixes))
  }


def differences(
  old: Config | dict[str, Any], new: Config, prefixes: Iterable[str] = ("",)
) -> list[str]:
  """The fields that differ, each as `name: old -> new`."""
  found = changes(old, new, prefixes).items()
  return [f"{name}: {before!r} -> {after!r}" for name, (before, after) in found]


Rule = tuple[Callable[[Any], bool], str]  # Whether a value holds; in words.


def _choice(*names: str) -> Rule:
  return lambda value: value in names, f"must be one of {', '.join(names)}"


def _whole(low: int, high: int, words: str) -> Rule:
  return lambda v: type(v) is int and low <= v <= high, f"must be from {words}"


def _number(holds: Callable[[float], bool], words: str) -> Rule:
  return (
    lambda v: type(v) in (int, float) and abs(v) <= _LARGEST and holds(v),
    f"must be {words}",
  )


def _or_none(rule: Rule) -> Rule:
  holds, words = rule
  return lambda v: v is None or holds(v), words


def _header(value: Any) -> bool:
  fields = re.findall(r"<(\w+)>", value) if isinstance(value, str) else []
  good = all(name.isidentifier() for name in fields)
  return good and "Content" in fields and len(set(fields)) == len(fields)


def _one_group(value: Any) -> bool:
  try:
    return re.compile(value).groups == 1
  except (re.error, TypeError, OverflowError, RecursionError):
    return False


_HEADER = (
  _header,
  "must have <Content>, and each field once, as '<Date> <Time> <Content>'",
)
_GROUP = (_one_group, "must be a regular expression with one group")
_TEXT = (lambda v: isinstance(v, str), "must be a text")
_SWITCH = (lambda v: isinstance(v, bool), "must be true or false")
_FINITE = _number(lambda _: True, "a finite number")
_POSITIVE = _number(lambda v: v > 0, "above 0")
_NOT_NEGATIVE = _number(lambda v: v >= 0, "at least 0")
_WHOLE = _whole(1, 2**31 - 1, "1 to 2**31 - 1")
_NATURAL = _whole(0, 2**31 - 1, "0 to 2**31 - 1")
_SIZE = _whole(1, 2**24, "1 to 2**24")
_SEED = _whole(0, 2**32 - 1, "0 to 2**32 - 1")
_SHARE = _number(lambda v: 0 <= v < 1, "from 0 to below 1")
_BETWEEN = _number(lambda v: 0 < v < 1, "above 0, below 1")
_UP_TO_1 = _number(lambda v: 0 < v <= 1, "above 0 and at most 1")
# Logits divided by less may be infinite.
_TEMPERATURE = _number(lambda v: v == 0 or v >= 1e-30, "0, or from 1e-30")
_SPLITS = _choice("train", "validation", "test")

# What each field may hold; only its default is said elsewhere.
RULES: dict[str, Rule] = {
  "task": _TEXT,
  "seed": _SEED,
  "data.source": _TEXT,
  "data.path": _or_none(_TEXT),
  "data.train_path": _or_none(_TEXT),
  "data.validation_path": _or_none(_TEXT),
  "data.test_path": _or_none(_TEXT),
  "data.unit": _choice("char", "byte", "word", "id", "session", "log"),
  "data.errors": _choice("strict", "replace", "latin-1"),
  "data.format": _choice(
    "text",
    "tab",
    "space",
    "csv",
    "jsonl",
    "folders",
    "files",
    "columns",
    "conllu",
    "spaces",
  ),
  "data.log_header": _or_none(_HEADER),
  "data.log_session": _or_none(_GROUP),
  "data.log_gap": _or_none(_POSITIVE),
  "data.log_lines": _or_none(_WHOLE),
  "data.label_field": _TEXT,
  "data.text_field": _TEXT,
  "data.split": _choice(
    "auto", "documents", "last_documents", "tails", "stream_tails"
  ),
  "data.validation_fraction": _SHARE,
  "data.test_fraction": _SHARE,
  "data.fold": _or_none(
    (
      lambda v: (
        isinstance(v, str)
        and (match := re.fullmatch(r"(\d{1,4})/(\d{1,4})", v)) is not None
        and 1 <= int(match[1]) <= int(match[2]) > 1
      ),
      "must be a part and how many there are, as 2/5",
    )
  ),
  "data.boundaries": _SWITCH,
  "data.min_count": _WHOLE,
  "data.vocabulary_size": _or_none(_WHOLE),
  "data.mapping": _choice("many_to_many", "many_to_one"),
  "data.window": _WHOLE,
  "data.step": _or_none(_WHOLE),
  "data.offset": _NATURAL,
  "data.random_offset": _SWITCH,
  "data.buckets": _or_none(_whole(1, 64, "1 to 64")),
  "data.repeats": _choice("each", "weight"),
  "data.keep": _choice("all", "first", "last"),
  "data.stateful": _SWITCH,
  "model.cell": _choice(
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "odyssey",
    "odyssey_nig",
    "odyssey_nfg",
    "odyssey_nog",
    "odyssey_niaf",
    "odyssey_noaf",
    "odyssey_cifg",
    "odyssey_np",
    "odyssey_fgr",
    "layer_norm_lstm",
    "slstm",
    "gru_reset_before",
    "mgu",
    "min_lstm",
    "min_gru",
  ),
  "model.hidden_size": _SIZE,
  "model.parameters": _or_none(_WHOLE),
  "model.layers": _whole(1, 128, "1 to 128"),
  "model.bidirectional": _SWITCH,
  "model.merge": _choice("concat", "sum", "mean"),
  "model.heads": _choice("joint", "all"),
  "model.embedding_size": _or_none(_SIZE),
  "model.pooling": _choice("last", "mean", "max"),
  "model.letters": _or_none(_SIZE),
  "model.tied": _SWITCH,
  "model.forget_bias": _FINITE,
  "model.initial_scale": _or_none(_POSITIVE),
  "model.products": _choice("float32", "bfloat16"),
  "model.scan": _choice("fused", "plain"),
  "model.dropout": _SHARE,
  "model.variational_dropout": _SHARE,
  "model.recurrent_dropout": _SHARE,
  "model.embedding_dropout": _SHARE,
  "model.weight_drop": _SHARE,
  "model.zoneout_hidden": _SHARE,
  "model.zoneout_cell": _SHARE,
  "model.activation_penalty": _NOT_NEGATIVE,
  "model.change_penalty": _NOT_NEGATIVE,
  "model.symbol_dropout": _SHARE,
  "model.input_noise": _NOT_NEGATIVE,
  "optimizer.name": _choice("rmsprop", "sgd", "adagrad", "adam", "adamw"),
  "optimizer.learning_rate": _POSITIVE,
  "optimizer.decay": _SHARE,
  "optimizer.momentum": _SHARE,
  "optimizer.nesterov": _SWITCH,
  "optimizer.dampened": _SWITCH,
  "optimizer.beta1": _SHARE,
  "optimizer.beta2": _SHARE,
  "optimizer.epsilon": _POSITIVE,
  "optimizer.weight_decay": _NOT_NEGATIVE,
  "optimizer.clip_norm": _or_none(_POSITIVE),
  "optimizer.clip_value": _or_none(_POSITIVE),
  "schedule.name": _choice(
    "constant", "exponential", "step", "cosine", "plateau"
  ),
  "schedule.warmup_steps": _NATURAL,
  "schedule.factor": _UP_TO_1,
  "schedule.after": _WHOLE,
  "schedule.every": _WHOLE,
  "schedule.final": _number(lambda v: 0 <= v <= 1, "from 0 to 1"),
  "schedule.patience": _WHOLE,
  "train.batch_size": _WHOLE,
  "train.cpu_devices": _or_none(_whole(1, 64, "1 to 64")),
  "train.epochs": _WHOLE,
  "train.max_steps": _or_none(_WHOLE),
  "train.batches_per_epoch": _or_none(_WHOLE),
  "train.samples_per_epoch": _or_none(_WHOLE),
  "train.class_weights": _choice("none", "balanced"),
  "train.eval_every": _or_none(_WHOLE),
  "train.patience": _or_none(_WHOLE),
  "train.label_smoothing": _SHARE,
  "train.ema": _or_none(_BETWEEN),
  "train.asgd": _or_none(_WHOLE),
  "train.on_nonfinite": _choice("stop", "rollback"),
  "train.rollback_factor": _BETWEEN,
  "train.rollbacks": _WHOLE,
  "train.sample_length": _whole(0, 10**4, "0 to 10,000"),
  "train.tensorboard": _SWITCH,
  "checkpoint.keep": _WHOLE,
  "checkpoint.every": _or_none(_WHOLE),
  "checkpoint.step": _or_none(_NATURAL),
  "evaluate.split": _SPLITS,
  "describe.measure": _SWITCH,
  "predict.split": _SPLITS,
  "predict.text": _or_none(_TEXT),
  "predict.path": _or_none(_TEXT),
  "predict.gap": (
    lambda v: isinstance(v, str) and v != "",
    "must not be empty",
  ),
  "predict.top_k": _WHOLE,
  "predict.sequences": _WHOLE,
  "predict.symbols": _WHOLE,
  "sample.temperature": (
    lambda v: isinstance(v, tuple) and v != () and all(map(_TEMPERATURE[0], v)),
    "must be one or several numbers from 0, those above 0 at least 1e-30",
  ),
  "sample.length": _WHOLE,
  "sample.streams": _WHOLE,
  "sample.prime": _TEXT,
  "sample.top_k": _or_none(_WHOLE),
  "sample.top_p": _or_none(_UP_TO_1),
  "sample.seed": _SEED,
  "sample.tempo": _whole(4, 10_000, "4 to 10,000"),  # MIDI's own limits.
  "detect.path": _or_none(_TEXT),
  "detect.anomalous_path": _or_none(_TEXT),
  "detect.labels": _or_none(_TEXT),
  "detect.normal_labels": _TEXT,
  "detect.anomalous_labels": _TEXT,
  "detect.inject": _SHARE,
  "detect.seed": _SEED,
  "detect.head": _TEXT,
  "detect.unknown": _NOT_NEGATIVE,
  "detect.short": _choice("score", "flag"),
  "detect.top_mean": _WHOLE,
  "detect.scores": _TEXT,
  "detect.combine": _choice("min", "fisher"),
  "detect.folds": (
    lambda v: type(v) is int and (v == 0 or 2 <= v <= 1000),
    "must be from 2 to 1000, or 0",
  ),
  "detect.rule": _choice("rate", "events", "budget", "bh", "topk"),
  "detect.rate": _BETWEEN,
  "detect.event_rate": _BETWEEN,
  "detect.budget": _WHOLE,
  "detect.false_share": _BETWEEN,
  "detect.top_k": _WHOLE,
  "detect.baselines": _SWITCH,
  "detect.events": _choice("flagged", "all", "none"),
  "detect.format": _choice("csv", "jsonl", "csv.gz", "jsonl.gz"),
  "detect.alternatives": _NATURAL,
  "detect.worst": _NATURAL,
  "detect.bootstrap": _NATURAL,
  "detect.followed": _WHOLE,
  "report.beside": _TEXT,
  "search.method": _choice("tpe", "random", "grid", "coarse"),
  "search.coarse_size": _SIZE,
  "search.trials": _WHOLE,
  "search.minutes": _or_none(_POSITIVE),
  "search.symbols": _or_none(_WHOLE),
  "search.pruning": _choice("median", "hyperband", "none"),
  "search.workers": _or_none(_whole(1, 1024, "1 to 1024")),
  "search.storage": _or_none(_TEXT),
}
# Of TRAINING, those that a run may change on the way; it records where.
CHANGEABLE = tuple(
  name
  for name in RULES
  if name.startswith(TRAINING)
  and not name.startswith(IDENTITY)
  and name
  not in ("train.cpu_devices", "train.sample_length", "train.tensorboard")
)
# Those of them that end a run, and nothing else.
LIMITS = ("train.epochs", "train.max_steps", "train.patience")
# Where one of these is set by a flag, it is part of the default workdir's name.
NAMING = (
  *IDENTITY,
  *(n for n in CHANGEABLE if n not in ("train.epochs", "train.max_steps")),
  "search.method",
)
# What is searched of a field is parsed by seqrnn/searching/space.py.
RULES |= {
  f"{_SPACE}{name}": _or_none(_TEXT)
  for name in RULES
  if name.startswith(TRAINING)
}


def as_float32(value: Any) -> Any:
  """A value as the arrays of a model hold it: numbers have 32 bits."""
  if isinstance(value, tuple):
    return tuple(map(as_float32, value))
  if not isinstance(value, float):
    return value
  near = ctypes.c_float(value).value
  return near if abs(near) >= _SMALLEST else 0.0


def broken(name: str, value: Any) -> str | None:
  """The rule of a field that a value breaks, as it is or in 32 bits."""
  holds, words = RULES[name]
  if not holds(value):
    return words
  near = as_float32(value)
  return None if holds(near) else f"{words}; in 32 bits it is {near}"


def check(config: Config):
  """Refuses values and pairs of values that make no sense.

  Raises:
    UserError: names the first such field, its value and the rule.
  """
  fields = flat(config)
  for name, value in fields.items():
    if isinstance(value, float) and not abs(value) <= _LARGEST:
      raise UserError(f"config.{name}={value}: must be finite, in 32 bits")
    rule = broken(name, value) if name in RULES else None
    if rule is not None:
      raise UserError(f"config.{name}={value!r}: {rule}")

  def pair(wrong: bool, *names: str, rule: str):
    if wrong:
      values = ", ".join(f"config.{name}={fields[name]!r}" for name in names)
      raise UserError(f"{values}: {rule}")

  data, train = config.data, config.train
  for name in ("train.batch_size", "sample.streams"):
    pair(
      fields[name] * data.window > 2**24,
      name,
      "data.window",
      rule="together they must not be more than 2**24 symbols",
    )
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
    data.stateful and data.buckets is not None,
    "data.stateful",
    "data.buckets",
    rule="streams have no padding that buckets would save",
  )
  for name, value in (("data.source", "files"), ("data.format", "text")):
    pair(
      data.unit == "log" and fields[name] != value,
      "data.unit",
      name,
      rule=f"logs are read with {name}={value}",
    )
  ways = ["data.log_session", "data.log_gap", "data.log_lines"]
  given = [name for name in ways if fields[name] is not None]
  pair(len(given) > 1, *given, rule="give one way to cut a log into sessions")
  for name in ("data.log_header", *ways):
    pair(
      fields[name] is not None and data.unit != "log",
      "data.unit",
      name,
      rule="it is for logs, which data.unit=log reads",
    )
  pair(
    data.stateful and data.repeats != "each",
    "data.stateful",
    "data.repeats",
    rule="a stream reads all documents as they stand",
  )
  pair(
    data.random_offset and data.buckets is not None,
    "data.random_offset",
    "data.buckets",
    rule="each epoch would have other lengths, to compile for",
  )
  pair(
    data.validation_fraction + data.test_fraction >= 1,
    "data.validation_fraction",
    "data.test_fraction",
    rule="together they must leave something to train on",
  )
  pair(
    None not in (config.detect.anomalous_path, config.detect.labels),
    "detect.anomalous_path",
    "detect.labels",
    rule="give one of the two, both say which sessions are anomalous",
  )
  pair(
    config.model.tied and config.model.embedding_size is None,
    "model.tied",
    "model.embedding_size",
    rule="tied weights need an embedding",
  )
  pair(
    config.model.input_noise > 0 and config.task != "polyphony",
    "model.input_noise",
    "task",
    rule="noise is added to frames of notes, which task='polyphony' has",
  )
  pair(
    config.model.heads == "all" and config.task != "gap_model",
    "model.heads",
    "task",
    rule="only task='gap_model' has a head for each side",
  )
  pair(
    config.model.heads == "all" and config.model.tied,
    "model.heads",
    "model.tied",
    rule="one embedding cannot be the softmax of three heads",
  )
  pair(
    config.model.tied and config.model.parameters is not None,
    "model.tied",
    "model.parameters",
    rule="the hidden size of tied weights is that of the embedding",
  )
  pair(
    config.model.embedding_dropout > 0 and config.model.embedding_size is None,
    "model.embedding_dropout",
    "model.embedding_size",
    rule="there must be an embedding to drop symbols from",
  )
  pair(
    train.ema is not None and train.asgd is not None,
    "train.ema",
    "train.asgd",
    rule="set one of the two, or neither to evaluate the newest parameters",
  )
  pair(
    None not in (train.patience, train.asgd) and train.patience <= train.asgd,
    "train.patience",
    "train.asgd",
    rule="training must not end before the averaging begins",
  )
  nesterov = config.optimizer.nesterov
  pair(
    nesterov and as_float32(config.optimizer.momentum) == 0,
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
