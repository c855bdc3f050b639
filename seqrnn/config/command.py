"""From a command line to its config and workdir: finds, merges and warns."""

import hashlib
import os
import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from seqrnn.config import read as config_lib
from seqrnn.config import suggestions
from seqrnn.config.derived import merge
from seqrnn.config.field import Condition, Fields
from seqrnn.config.fields.conditions import TASKS
from seqrnn.config.read import FIELDS, IDENTITY, SHAPE, Config
from seqrnn.config.resolve import fitted_names
from seqrnn.errors import UserError, report
from seqrnn.runtime import devices, files, generations

# Modes that need no run.
_STARTS = ("train", "describe", "check", "search", "config")
# Fields that a flag adds to the name of the default workdir.
NAMING = (*IDENTITY, "train.fit_to_data", "train.patience", "search.method")
_NAMED = [name for name in FIELDS if name.startswith(NAMING)]
_ZOO = Path(__file__).parents[1] / "zoo"  # Trained models, a folder each.
_READ_NO_INPUTS = "sample", "export", "config"
# Modes of the current model, after a refresh; the others are of the first one.
_CURRENT = "detect", "review", "refresh", "report"


class Command(NamedTuple):
  """The flags that are no fields; `config` may be a ConfigDict from Python."""

  mode: str
  config: str | ConfigDict | None = None
  workdir: str | None = None
  process_id: int | None = None


class Base(NamedTuple):
  """The config that flags override, and the workdir of a command.

  Attributes:
    path: of the file that the config is from.
    config: without flags.
    by_config: the fields that the config sets; JSON, which has every field,
      sets none.
    workdir: of the run; of a comparison, several, separated by commas.
    run: the config of the run in the workdir; None: there is none, or the mode
      asks for none.
  """

  path: Path
  config: Config
  by_config: Set[str]
  workdir: Path
  run: Config | None


def resolve(request: Command, overrides: Fields) -> tuple[Config, Path]:
  """Returns the config and the workdir that the flags name.

  Warns on stderr about fields that were set and have no effect.

  Args:
    request: the flags that are no fields.
    overrides: the values of fields that flags set, by the fields' names.

  Raises:
    UserError: the flags name no config, or the workdir holds another run.
  """
  folders = _folders(request)
  base = find_base(request, folders, overrides)
  # A config that is printed is for any machine.
  cores = None if request.mode == "config" else devices.cores()
  run = None if base.run is None else config_lib.flat(base.run)
  by_user = base.by_config | overrides.keys()
  config = merge(base.config, overrides, by_user, run, cores)
  if len(folders) < 2:  # A comparison builds no network.
    config_lib.check(config)
  if base.run is not None and request.mode not in ("train", "search"):
    # Without --config only the model is fixed; the data may be other files.
    fixed = IDENTITY if request.config else SHAPE
    if differing := config_lib.differences(base.run, config, fixed):
      raise UserError(
        f"{base.workdir}: was trained with other settings,"
        f" {'; '.join(differing)}; --workdir alone uses the settings of the run"
      )
  if not request.process_id:
    warn(request, base, config, overrides.keys())
  return config, base.workdir


def find_base(request: Command, folders: list[str], overrides: Fields) -> Base:
  """Finds the base of the config, the workdir, and the run in it.

  Args:
    request: the flags that are no fields.
    folders: those that --workdir names.
    overrides: as of `resolve`; they are in the name of a default workdir.
  """
  for folder in folders[:1]:
    files.check_links(folder)
  record = "search.json" if request.mode == "search" else "config.json"
  path, plain = _base_config(request, folders, record)
  by_config = set()
  if path.suffix == ".py" or isinstance(request.config, ConfigDict):
    by_config = config_lib.changes(config_lib.defaults(), plain).keys()
  workdir = Path(",".join(folders))
  if not folders:
    _, argument = config_lib.split_argument(str(request.config))
    name = "-".join([path.stem, *argument])
    fields = {**config_lib.flat(plain), **overrides}
    workdir = Path("runs", run_name(name, plain, fields))
    files.check_links(workdir)
  run = None
  new = request.mode in _STARTS and not (workdir / record).exists()
  if not new and request.mode != "config":
    run = config_lib.read_run(workdir, record) if request.config else plain
  return Base(path, plain, by_config, workdir, run)


def warn(request: Command, base: Base, config: Config, by_flags: Set[str]):
  """Warns on stderr of fields without effect; shows which paths may be read."""
  defaults = config_lib.defaults()
  # A field of a config that only flags make useless is no mistake.
  vain = useless(base.config, base.by_config - by_flags, defaults)
  for line in useless(config, by_flags | vain.keys(), defaults).values():
    report(f"warning: {line}")
  if not request.config and request.mode not in _READ_NO_INPUTS:
    show_inputs(base.path, config, by_flags)


def _folders(request: Command) -> list[str]:
  """Returns --workdir: a folder, or the runs that a report compares."""
  if not request.workdir:
    return []
  folder = files.plain(request.workdir)
  if in_zoo(request.workdir):
    folder = str(zoo_run(request.workdir))
  if request.mode in _CURRENT and os.path.exists(folder):
    return [str(generations.current(Path(folder)))]
  if request.mode != "report":
    return [folder]
  parts = map(files.plain, request.workdir.split(","))
  return [run for part in parts for run in files.matching_runs(part)]


def in_zoo(workdir: object) -> bool:
  """Returns whether --workdir names a model of the zoo."""
  return str(workdir).startswith("zoo:")


def zoo_run(name: str) -> Path:
  """Returns the run runs/zoo-NAME; at first, copies it from the zoo.

  `tensors.complete` writes its checkpoint.

  Args:
    name: `zoo:` and a folder of seqrnn/zoo.

  Raises:
    UserError: the zoo has no such model.
  """
  known = [f"zoo:{path.name}" for path in sorted(_ZOO.iterdir())]
  if name not in known:
    hint = suggestions.hint(name, known)
    raise UserError(f"--workdir={name}: the zoo has {', '.join(known)}{hint}")
  folder = Path("runs", name.replace(":", "-"))
  if not (folder / "config.json").exists():
    source = _ZOO / name.removeprefix("zoo:")
    files.check_links(folder)
    # Inner folders come first, and a config.json last: it completes a run.
    for part, _, names in os.walk(source, topdown=False):
      names.sort(key="config.json".__eq__)
      target = folder / os.path.relpath(part, source)
      target.mkdir(parents=True, exist_ok=True)
      contents = {name: Path(part, name).read_bytes() for name in names}
      files.write_checked(target, contents)
  return folder


def _base_config(
  request: Command, folders: list[str], record: str
) -> tuple[Path, Config]:
  """Returns the config that flags override, and the file that it is from.

  `record` is the name of the file in a workdir with the config of the run.
  """
  if isinstance(request.config, ConfigDict):
    path = Path("ConfigDict")
    return path, config_lib.with_fields(path, config_lib.flat(request.config))
  if request.config:
    name, argument = config_lib.split_argument(request.config)
    path = config_lib.find_config(name)
    return path, config_lib.read_config(path, *argument)
  if folders:
    return Path(folders[0], record), config_lib.read_run(folders[0], record)
  raise UserError(
    f"--mode={request.mode}: needs --workdir, the folder of a run, or --config;"
    f" the configs are {', '.join(config_lib.config_names())}"
  )


def program(path: str) -> str:
  """How a program with this path, argv[0], is called on a command line."""
  return "python run.py" if Path(path).name == "run.py" else "seqrnn"


def run_name(name: str, old: Config, new: Config | Fields) -> str:
  """Returns the default name of a run: the config and the changed fields.

  Args:
    name: of the config.
    old: the config without flags.
    new: the config with flags.
  """
  parts = [name]
  for field, (_, value) in config_lib.changes(old, new, NAMING).items():
    last = field.rpartition(".")[2]
    several = len(suggestions.with_last_part(last, _NAMED)) > 1
    label = field if several else last
    parts.append(f"{label}={config_lib.text(value)}")
  # Replace path separators, and characters that Orbax reads as a pattern.
  name = re.sub(r"[/\\\[\]*?]", "_", "-".join(parts))
  if len(os.fsencode(name)) > 200:  # Most file systems allow 255 bytes.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    name = f"{name[:100]}-{digest[:12]}"
  return name


def show_inputs(path: Path, config: Config, by_flags: Set[str]):
  """Prints on stderr which paths a mode may read because a workdir names them.

  Of a run that was trained in this folder, they are the user's own.

  Args:
    path: the file with the config of the run.
    config: this config, with the fields that flags set.
    by_flags: the fields that are not from the file.
  """
  named = config_lib.changes(config_lib.defaults(), config, config_lib.PLACES)
  for name, (_, value) in named.items():
    if name not in by_flags and files.is_copy(path.with_name("lock")):
      report(
        f"may read {name}={value!r}, which {path} names, of a run that was not"
        " trained here"
      )


def useless(
  config: Config, names: Iterable[str], defaults: Config
) -> dict[str, str]:
  """Returns the fields that were set and have no effect, each with a warning.

  Args:
    config: the config of the run.
    names: the fields that the user has set.
    defaults: the defaults; a field with its default value is not reported.
  """
  fields, lines = config_lib.flat(config), {}
  for name in sorted(config_lib.changes(defaults, config).keys() & {*names}):
    conditions = FIELDS[name].used
    if conditions and not any(_holds(way, fields) for way in conditions):
      others = dict.fromkeys(other for way in conditions for other in way)
      have = ", ".join(f"{other}={fields[other]!r}" for other in others)
      lines[name] = (
        f"config.{name}={fields[name]!r}: has no effect with {have}; it needs"
        f" {needs(conditions)}"
      )
  return lines


def needs(conditions: Iterable[Condition]) -> str:
  """Returns the conditions of a field in words."""
  return "; or ".join(
    " and ".join(
      f"{name} {' or '.join(map(config_lib.text, values))}"
      for name, values in way.items()
    )
    for way in conditions
  )


def _holds(condition: Condition, fields: Fields) -> bool:
  """Returns whether the fields have, or may get, these values."""
  later = {*config_lib.searched(fields), *fitted_names(fields)}
  return all(
    fields[name] in values
    or (name == "task" and fields[name] not in TASKS)
    or name in later
    for name, values in condition.items()
  )
