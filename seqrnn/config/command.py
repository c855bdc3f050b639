"""Resolves a command line to a config and a workdir."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from seqrnn.config import read as config_lib
from seqrnn.config import recipes, warned
from seqrnn.config.read import FIELDS, IDENTITY, SHAPE, Config
from seqrnn.config.resolve import Facts, Machine
from seqrnn.config.resolve import resolve as resolve_fields
from seqrnn.errors import UserError
from seqrnn.runtime import devices, files

# The modes; each is a module of seqrnn/modes.
MODES = (
  "train",
  "evaluate",
  "predict",
  "sample",
  "embed",
  "describe",
  "search",
  "detect",
  "review",
  "report",
  "export",
  "config",
)
_STARTS = ("train", "describe", "search", "config")  # They need no run.
# Fields that a flag adds to the name of the default workdir.
NAMING = (*IDENTITY, "train.fit_to_data", "train.patience", "search.method")
_NAMED = [name for name in FIELDS if name.startswith(NAMING)]
_LAST = Counter(name.rpartition(".")[2] for name in _NAMED)
# Field -> its label in a name: the last part, unless several fields have it.
_LABELS = {
  name: last if _LAST[last := name.rpartition(".")[2]] == 1 else name
  for name in _NAMED
}


def resolve(
  parsed: flags.FlagValues,
  overrides: dict[str, Any],
  machine: Machine | None,
) -> tuple[Config, Path]:
  """Returns the config and the workdir that the flags name.

  Warns on stderr about fields that were set and have no effect.

  Args:
    parsed: the flags that are no fields.
    overrides: the values of fields that flags set, by the fields' names.
    machine: what computes; None: not known yet.

  Raises:
    UserError: the flags name no config, or the workdir holds another run.
  """
  runs = _folders(parsed)
  folder = runs[0] if runs else None
  if folder:
    files.check_links(folder)
  record = "search.json" if parsed.mode == "search" else "config.json"
  path, plain = _base(parsed, folder, record)
  by_flags = set(overrides)
  given = set(by_flags)
  # JSON sets every field.
  if path.suffix == ".py" or isinstance(parsed.config, ConfigDict):
    given |= config_lib.changes(config_lib.defaults(), plain).keys()
  if folder:
    workdir = Path(",".join(runs))  # A report compares several.
  else:
    flags_only = config_lib.flat(plain) | overrides
    workdir = Path("runs", run_name(path.stem, plain, flags_only))
    files.check_links(workdir)
  new = parsed.mode in _STARTS and not (workdir / record).exists()
  run = plain
  if parsed.config and not new and parsed.mode != "config":
    run = _read_run(workdir, record, "the command")
  if new or parsed.mode == "config":
    facts = Facts(overrides, given, machine=machine)
  else:
    facts = Facts(overrides, given, config_lib.flat(run), machine)
  config, _ = resolve_fields(plain, facts)
  config_lib.check(config)
  if parsed.mode not in ("train", "search", "config") and not new:
    # Without --config only the model is fixed; the data may be other files.
    fixed = IDENTITY if parsed.config else SHAPE
    _refuse_differences(run, config, workdir, fixed)
  if not parsed.process_id:
    # A field that names the workdir of a config has an effect in any mode.
    named = NAMING if parsed.config else ()
    read = [name for name in by_flags if not name.startswith(tuple(named))]
    warned.report(parsed.mode, by_flags, config, plain, given, read)
    if not parsed.config:
      mode = "follow" if parsed.follow else parsed.mode
      warned.show_inputs(path, config, mode, by_flags)
  return config, workdir


def _folders(parsed: flags.FlagValues) -> list[str]:
  """Returns --workdir: a folder, or the runs that a report compares."""
  if not parsed.workdir:
    return []
  folder = os.path.expanduser(parsed.workdir)
  if parsed.mode != "report" or os.path.exists(folder):
    return [folder]
  parts = map(os.path.expanduser, parsed.workdir.split(","))
  return [run for part in parts for run in files.matching_runs(part)]


def _base(
  parsed: flags.FlagValues, folder: str | None, record: str
) -> tuple[Path, Config]:
  """Returns the config that flags override, and the file that it is from.

  Args:
    parsed: the flags; --config may be a ConfigDict from Python.
    folder: the workdir.
    record: the name of the file in the workdir with the config of the run.
  """
  given = parsed.config
  if not (given or folder):
    raise UserError(_nothing_named(parsed.mode))
  if isinstance(given, ConfigDict):
    path, fields = Path("ConfigDict"), config_lib.flat(given)
    return path, config_lib.with_fields(path, fields)
  if given:
    path = recipes.find(given)
    return path, config_lib.read(path)
  assert folder is not None, "one of the two is given"
  how = f"--config=NAME --workdir={folder}"
  return Path(folder, record), _read_run(folder, record, how)


def named(parsed: flags.FlagValues) -> tuple[Config, str]:
  """Returns the config that the flags name, before other flags change it.

  Returns:
    the config, and the flag; the defaults and "" where no flag names a config.

  Raises:
    UserError: there is no such config or run.
  """
  given, folder = parsed.config, parsed.workdir
  if not (given or folder):
    return config_lib.defaults(), ""
  _, config = _base(parsed, folder, "config.json")
  return config, f"--config={given}" if given else f"--workdir={folder}"


def _read_run(folder: str | Path, record: str, how: str) -> Config:
  """Returns the config of a run; `how` are the flags that train it."""
  if record == "config.json" and not Path(folder, record).exists():
    raise UserError(
      f"--workdir={folder}: has no run; train it first: {how} without --mode"
    )
  return config_lib.read_run(folder, record)


def _nothing_named(mode: str) -> str:
  """Returns the error of a command with neither a config nor a workdir."""
  if mode in _STARTS:
    return (
      "--config: is missing, and so is --workdir, the folder of a run; for"
      f" example --config=brnn; the configs are {', '.join(recipes.names())}"
    )
  missing = f"--workdir: is missing, the folder of the run for --mode={mode}"
  if found := sorted(Path("runs").glob("*/config.json")):
    listed = ", ".join(str(path.parent) for path in found[:5])
    return f"{missing}; the runs here are {listed}{', ...' * (len(found) > 5)}"
  name = "logs" if mode in ("detect", "review") else "rnn"
  return (
    f"{missing}; train a"
    f" run first, for example with --config={name} --workdir=runs/{name}, then"
    f" --workdir=runs/{name} --mode={mode}"
  )


def _refuse_differences(
  trained: Config, config: Config, workdir: Path, fixed: Iterable[str]
):
  """Refuses a config that differs from the run in fields of these prefixes."""
  found = config_lib.differences(trained, config, fixed)
  if found:
    raise UserError(
      f"{workdir}: was trained with other settings, {'; '.join(found)};"
      " --workdir alone uses the settings of the run"
    )


def program(path: str) -> str:
  """How a program with this path, argv[0], is called on a command line."""
  return "python run.py" if Path(path).name == "run.py" else "seqrnn"


def run_name(name: str, old: Config, new: Config | dict[str, Any]) -> str:
  """Returns the default name of a run: the config and the changed fields.

  Args:
    name: of the config.
    old: the config without flags.
    new: the config with flags.
  """
  parts = [name]
  for field, (_, value) in config_lib.changes(old, new, NAMING).items():
    parts.append(f"{_LABELS[field]}={config_lib.text(value)}")
  # Replace path separators, and characters that Orbax reads as a pattern.
  name = re.sub(r"[/\\\[\]*?]", "_", "-".join(parts))
  if len(os.fsencode(name)) > 200:  # Most file systems allow 255 bytes.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    name = f"{name[:100]}-{digest[:12]}"
  return name


def gpu_workers(config: Config, mode: str) -> bool:
  """Returns whether this process starts workers that compute on GPUs.

  It must not use the GPUs then: JAX would reserve most of their memory for it.
  """
  several = mode == "search" and (config.search.workers or 1) > 1
  return several and bool(devices.gpus())
