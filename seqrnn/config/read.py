"""Finds, reads, overrides, checks, compares and saves configs."""

import glob
import json
import os
import re
import runpy
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from seqrnn.config import combinations, suggestions
from seqrnn.config.field import WRITTEN, Fields, FieldValue, nested
from seqrnn.config.field import Config as Config
from seqrnn.config.fields import FIELDS as FIELDS
from seqrnn.config.fields import get_config as defaults
from seqrnn.errors import UserError, report
from seqrnn.runtime import files

_LIMIT = 2**20  # Bytes of a config; a run writes about 2,000 bytes.
_FOLDER = Path(__file__).parents[1] / "configs"
# Fields that name a place, and READ or WRITTEN.
PLACES = {name: field.place for name, field in FIELDS.items() if field.place}
# Those that are paths from the current folder: tags lie beside their texts.
_PATHS = PLACES.keys() - {"data.tags_file", "detect.port", "search.storage"}

# The modes; each is a module of seqrnn/modes.
MODES = (
  *("train", "evaluate", "predict", "sample", "embed", "describe", "check"),
  *("search", "detect", "review", "refresh", "report", "export", "config"),
)
# Prefixes of fields that affect training; a search may choose their values.
TRAINING = (
  *("task", "seed", "data.", "model.", "optimizer.", "schedule.", "train."),
)
# Fields that determine the shapes of parameters, the vocabulary, and whether a
# wide part was fitted.
SHAPE = (
  *("task", "model.", "data.unit", "data.mapping", "data.boundaries"),
  *("data.log_mask", "data.log_paths", "data.unlabelled_path"),
  *("train.choice", "train.start_from"),
)
CPU = ("train.cpu_devices", "train.cpu_threads")  # Set before JAX starts.
# Fields that only end a training: the only ones that may change on resume.
LIMITS = ("train.epochs", "train.max_steps", "train.patience")
# Fields that identify a run: fixed once training has started. A command has its
# own devices and checkpoint to read; of the fields that train.fit_to_data names
# the values are compared.
IDENTITY = tuple(
  name
  for name in FIELDS
  if name.startswith((*TRAINING, "checkpoint."))
  and name not in (*LIMITS, *CPU, "checkpoint.step", "train.fit_to_data")
)
# Of a run, in its config.json. A run of another format must be trained again.
FORMAT = 3


def config_names() -> list[str]:
  """Returns the names of the configs in ./configs and in the project.

  `base` has only the defaults of all others.
  """
  folders = Path("configs"), _FOLDER
  stems = {p.stem for folder in folders for p in folder.glob("[!_]*.py")}
  return sorted(stems - {"base"})


def find_config(name: str) -> Path:
  """Returns the file of the config that --config names.

  Args:
    name: such as brnn, or a path, with or without `.py`. `configs/brnn.py` is
      found in the project if it is not in the current folder.

  Raises:
    UserError: there is no such config.
  """
  path = Path(os.path.expanduser(name))
  paths = [path]
  if path.name == name and not path.suffix:
    paths = [Path("configs", f"{name}.py"), _FOLDER / f"{name}.py", path]
  elif path.parent.name == "configs":
    paths.append(_FOLDER / path.name)
  if not path.suffix:
    paths.append(path.with_name(f"{path.name}.py"))
  for path in paths:
    if path.exists() and not path.is_dir():  # A pipe is refused later.
      return path
  known = config_names()
  raise UserError(
    f"--config={name}: no such file; the configs are {', '.join(known)}"
    f"{suggestions.hint(path.stem, known)}"
  )


def split_argument(name: str) -> tuple[str, list[str]]:
  """Splits FILE.py:ARGUMENT, as ml_collections has it.

  Returns:
    the file, and the arguments of its get_config().
  """
  file, colon, argument = name.partition(".py:")
  return (f"{file}.py", [argument]) if colon else (name, [])


def read_config(path: str | os.PathLike, *arguments: str) -> Config:
  """Reads a config from a .py file with get_config(), or from JSON.

  A field that the file lacks has its default.

  Args:
    path: of the file.
    *arguments: of get_config(), at most one.

  Raises:
    UserError: the file is missing or invalid, or it has an unknown field or a
      value of another type.
  """
  path = Path(path)
  if path.suffix == ".py":
    return with_fields(path, _run_config(path, arguments))
  fields = read_fields(path)
  for name in ("format", "folder"):  # The config.json of a run has them.
    fields.pop(name, None)
  return with_fields(path, fields)


def _run_config(path: Path, arguments: Iterable[str]) -> Fields:
  """Returns the fields that get_config() of a .py file sets."""
  try:
    names = runpy.run_path(str(path), run_name=path.stem)
    config = names.get("get_config", lambda *_: None)(*arguments)
    if not isinstance(config, ConfigDict):
      raise UserError(f"{path}: get_config() must return a ConfigDict")
    return {str(name): value for name, value in flat(config).items()}
  except (UserError, KeyboardInterrupt):
    raise
  except BaseException as error:  # It may raise anything.
    raise UserError(_located(path, error)) from None


def _located(path: Path, error: BaseException) -> str:
  """Returns the message of an error, with the line of the config it is from."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  if isinstance(error, SyntaxError) and error.filename == str(path):
    lines.append(error.lineno)
  where = f"{path}:{lines[-1]}" if lines else str(path)
  if match := re.search(r'Key "(\w+)" does not exist', str(error)):
    return f"{where}: {no_such_field(match[1])}"
  return f"{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def read_fields(path: str | os.PathLike) -> dict[str, FieldValue]:
  """Returns the fields of a JSON config by their dotted names.

  Raises:
    UserError: the file is missing or is not a config.
  """
  try:
    fields = json.loads(files.read_bytes(path, _LIMIT).decode("utf-8"))
    # Each name in a group is joined to the group's.
    if not isinstance(fields, dict) or any(len(name) > 99 for name in fields):
      raise ValueError("must be an object of fields and groups of fields")
    fields = flat(fields)
    fields.pop("data.fold", None)  # Of earlier versions, for their folds.
    return fields
  except OSError as error:
    raise UserError(f"{path}: {error.strerror or error}") from None
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: not a config in JSON ({error})") from None


def flat(config: ConfigDict | Fields) -> dict[str, Any]:
  """Returns every field by its dotted name."""
  fields = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict | dict):
      fields |= {f"{name}.{key}": inner for key, inner in value.items()}
    else:
      fields[name] = value
  return {  # JSON has no tuples.
    name: tuple(value) if isinstance(value, list) else value
    for name, value in fields.items()
  }


def groups_of_fields() -> list[str]:
  """Returns the groups of fields."""
  return list(dict.fromkeys(n.partition(".")[0] for n in FIELDS if "." in n))


def no_such_field(name: str) -> str:
  """Returns the message for the name of a group or of nothing."""
  hint = suggestions.question(suggestions.fields(name, FIELDS))
  return f"config.{name}: no such field{hint}"


def set_field(config: Config, name: str, value: FieldValue):
  """Sets one field."""
  group, _, key = name.rpartition(".")
  (config[group] if group else config)[key] = value


def converted(name: str, value: FieldValue) -> Any:
  """Returns a value of Python, or the text of a flag, in its field's type.

  Raises:
    UserError: there is no such field, or the value is not of its type.
  """
  if name not in FIELDS:
    raise UserError(no_such_field(name))
  try:
    return FIELDS[name].read(value)
  except (ValueError, TypeError):
    rule = FIELDS[name].rule_text
    raise UserError(f"config.{name}={value!r}: {rule}") from None


def override(config: Config, name: str, value: FieldValue):
  """Sets one field from a value, as `converted` reads it."""
  set_field(config, name, converted(name, value))


def text(value: FieldValue) -> str:
  """Returns a value as a flag has it."""
  return str(value).lower() if isinstance(value, bool | None) else str(value)


def with_fields(path: Path, fields: Fields) -> Config:
  """Returns the defaults, overridden by the fields of a file."""
  config = defaults()
  for name, value in fields.items():
    try:
      override(config, name, value)
    except UserError as error:
      raise UserError(f"{path}: {error}") from None
  return config


def read_run(workdir: str | os.PathLike, name: str = "config.json") -> Config:
  """Reads the config of a run.

  A field that the file lacks has its default. Fields of places that are written
  are ignored, with a warning on stderr. A relative path that the current folder
  lacks is taken as one in the folder where the training was started.

  Args:
    workdir: the folder of the run.
    name: the file name.

  Raises:
    UserError: the file is missing, invalid or of another format, or it has an
      unknown field.
  """
  path = Path(workdir) / name
  if not path.exists():
    missing = "has no run; train one, with a --config such as --config=base"
    if name != "config.json":
      missing = "has no search; start one with a --config"
    elif path.with_name("search.json").exists():
      missing = "has a search; its trials are runs, such as trials/0000"
    raise UserError(f"--workdir={workdir}: {missing}")
  files.verify_file(path)
  fields = read_fields(path)
  number, folder = fields.pop("format", None), fields.pop("folder", None)
  if type(number) is not int or number != FORMAT:
    raise UserError(
      f"{path}: format={number!r}: must be {FORMAT}; another version of seqrnn"
      " wrote it, so train again in another --workdir"
    )
  written = [name for name, place in PLACES.items() if place == WRITTEN]
  usual = flat(defaults())
  ignored = [n for n in written if fields.pop(n, usual[n]) != usual[n]]
  if ignored:
    names = ", ".join(ignored)
    report(f"{path}: ignored, only flags and --config set them: {names}")
  config = with_fields(path, fields)
  expand(config)
  for name, value in _relative_paths(config).items():
    if folder and not _exists(value):
      set_field(config, name, os.path.join(str(folder), value))
  return config


def _relative_paths(config: Config) -> dict[str, str]:
  """Returns the fields that name paths from the current folder."""
  fields = {name: flat(config)[name] for name in _PATHS}
  is_relative = lambda path: path and path[0] != "/" and "://" not in path
  return {name: path for name, path in fields.items() if is_relative(path)}


def _exists(path: str) -> bool:
  """Returns whether a path, or the begin of a glob, leads to something."""
  begin = re.match(r"[^*?[\0]*[^/\0]*", path)
  return os.path.exists(path) or bool(begin and glob.glob(begin[0]))


def same_path(path: str | None, recorded: str | None) -> bool:
  """Returns whether a path leads to what a run has recorded.

  A path that the current folder lacks may be in the folder of the training.
  """
  if not path or not recorded:
    return False
  is_there = recorded.endswith(f"/{os.path.normpath(path)}")
  is_same = os.path.abspath(path) == os.path.abspath(recorded)
  return is_same or (is_there and not _exists(path))


def expand(config: Config):
  """Makes all paths plain, and replaces ~ in other fields that name places."""
  for name in PLACES:
    if (value := flat(config)[name]) is not None:
      convert = files.plain if name in _PATHS else os.path.expanduser
      set_field(config, name, convert(value))


def encoded(config: Config, recorded: bool = True) -> bytes:
  """Returns the config as JSON.

  Args:
    config: the config.
    recorded: whether it is for a workdir, which names no place to write to,
      and the folder of relative paths.
  """
  fields = {
    name: value
    for name, value in flat(config).items()
    if not (recorded and PLACES.get(name) == WRITTEN)
  }
  content = {"format": FORMAT, **nested(fields)}
  if recorded and _relative_paths(config):
    content["folder"] = os.getcwd()
  return (json.dumps(content, indent=2) + "\n").encode()


def changes(
  old: Config | Fields, new: Config | Fields, prefixes: Iterable[str] = ("",)
) -> dict[str, tuple[FieldValue, FieldValue]]:
  """Returns the fields that differ, with both values, sorted by name."""
  a, b = flat(old), flat(new)
  return {
    name: (a.get(name), b.get(name))
    for name in sorted(a | b)
    if a.get(name) != b.get(name) and name.startswith(tuple(prefixes))
  }


def settings(config: Config, prefixes: Iterable[str]) -> Fields:
  """Returns the fields that are set, whatever the places of files are.

  Without the defaults, a field that seqrnn adds changes nothing.
  """
  fields = changes(defaults(), config, prefixes).items()
  return {k: value for k, (_, value) in fields if k not in PLACES}


def differences(
  old: Config | Fields, new: Config | Fields, prefixes: Iterable[str] = ("",)
) -> list[str]:
  """Returns the fields that differ, each as `name: old -> new`."""
  pairs = changes(old, new, prefixes).items()
  return [f"{name}: {before!r} -> {after!r}" for name, (before, after) in pairs]


def searched(fields: Fields) -> set[str]:
  """Returns the names of the fields that a search chooses."""
  return {text.partition("=")[0].strip() for text in fields["search.space"]}


def check(config: Config):
  """Refuses values that break a rule, and values that exclude each other.

  Raises:
    UserError: names the first field or conflict, the values and the rule.
  """
  for name, value in flat(config).items():
    if (rule := broken(name, value)) is not None:
      raise UserError(f"config.{name}={value!r}: {rule}")
  combinations.check_combinations(config)


def broken(name: str, value: FieldValue) -> str | None:
  """Returns the rule that a value breaks; None: it breaks none."""
  field = FIELDS[name]
  if field.holds(value):
    return None
  return field.words + suggestions.hint(str(value), field.rule.names)


def refuse_unless(config: Config, plain: Fields, why: str):
  """Refuses a config without the field values that a task requires.

  Args:
    config: the config.
    plain: the required values by field.
    why: the reason, for the message.

  Raises:
    UserError: a field has another value.
  """
  for name, value in plain.items():
    holds = combinations.value_of(config, name) == value
    rule = f"{why}, it must be {value!r}"
    combinations.require(config, holds, rule, name, "task")
