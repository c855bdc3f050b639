"""Resolves a command line to a config and a workdir."""

import copy
import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from seqrnn import catalogue
from seqrnn import config as config_lib
from seqrnn.config import CHANGEABLE, FIELDS, IDENTITY, SHAPE, Config
from seqrnn.errors import UserError, visible
from seqrnn.fields import Condition
from seqrnn.runtime import devices, files

# Fields that a flag adds to the name of the default workdir.
NAMING = (
  *IDENTITY,
  *(n for n in CHANGEABLE if n not in ("train.epochs", "train.max_steps")),
  "search.method",
)
# The tasks of this project. A task of the user may use any field.
_TASKS = {
  task
  for field in FIELDS.values()
  for condition in field.used
  for task in condition.get("task", ())
}

_INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "    "}

Overrides = list[tuple[str, str | bool]]  # (field, text of its flag)


def split_overrides(argv: list[str]) -> tuple[Overrides, list[str]]:
  """Splits a command line into overrides (x, v) and other arguments.

  --config.x=v and --config.x v give (x, v), --config.x alone gives (x, True),
  and --noconfig.x gives (x, False).
  """
  overrides, rest = [], []
  remaining = list(reversed(argv))
  while remaining:
    argument = remaining.pop()
    match = re.fullmatch(r"--?(no)?config\.([^=]+)(=.*)?", argument, re.DOTALL)
    if not match or (match[1] and match[3]):
      rest.append(argument)
    elif match[3]:
      overrides.append((match[2], match[3][1:]))
    elif match[1]:
      overrides.append((match[2], False))
    elif remaining and not remaining[-1].startswith("--"):
      overrides.append((match[2], remaining.pop()))
    else:
      overrides.append((match[2], True))
  return overrides, rest


def resolve(
  parsed: flags.FlagValues, overrides: Overrides
) -> tuple[Config, Path]:
  """Returns the config and the workdir that the flags name.

  Warns on stderr about fields that were set and have no effect.

  Raises:
    UserError: the flags name no config, or the workdir holds another run.
  """
  path, folder, beside = parsed.config, parsed.workdir, ""
  if folder and parsed.mode == "report" and not os.path.exists(folder):
    folder, _, beside = folder.partition(",")  # Several runs are compared.
  if folder:
    files.check_links(folder)
  defaults = config_lib.defaults()
  record = _record(parsed.mode, folder)
  if isinstance(path, ConfigDict):  # From Python.
    fields = config_lib.flat(path)
    plain = config_lib.with_fields(Path("ConfigDict"), fields, defaults)
  elif path:
    plain = config_lib.read(path, defaults)
  elif folder:
    plain = config_lib.read_run(folder, defaults, record)
  else:
    raise UserError(
      "--config: is missing; for example --config=configs/brnn.py"
    )
  config = copy.deepcopy(plain)
  if beside:
    config.report.beside = beside
  _apply(overrides, config)
  flags_only = copy.deepcopy(config)
  given = {name for name, _ in overrides}
  # JSON sets every field.
  if isinstance(path, ConfigDict) or (path and path.endswith(".py")):
    given |= config_lib.changes(defaults, plain).keys()
  catalogue.complete(config, given, dict(overrides))
  config_lib.check(config)
  if folder:
    workdir = Path(folder)
  else:
    workdir = Path("runs", run_name(Path(path).stem, plain, flags_only))
    files.check_links(workdir)
  may_start = parsed.mode in ("train", "describe", "search")
  new = may_start and not (workdir / record).exists()
  recorded = plain
  if path and not new:
    recorded = config_lib.read_run(workdir, defaults, record)
  if parsed.mode not in ("train", "search") and not new:
    # Without --config only the model is fixed; the data may be other files.
    config = config_lib.settled(config, recorded)
    _refuse_differences(recorded, config, workdir, IDENTITY if path else SHAPE)
  for name in ("cpu_devices", "cpu_threads"):
    if config.train[name] is None:
      config.train[name] = recorded.train[name]
  if not parsed.process_id:
    for line in unused(config, given, defaults):
      print("warning:", visible(line), file=sys.stderr)
  return config, workdir


def _record(mode: str, folder: str | None) -> str:
  """Returns the name of the file with the config that a mode reads.

  A search and a run of the same config may share a workdir; a report shows
  both.
  """
  if mode == "search":
    return "search.json"
  only_search = (
    mode == "report"
    and folder
    and not Path(folder, "config.json").exists()
    and Path(folder, "search.json").exists()
  )
  return "search.json" if only_search else "config.json"


def _apply(overrides: Overrides, config: Config):
  """Sets fields from flags; hidden_size replaces the config's parameters."""
  for name, value in overrides:
    config_lib.override(config, name, value)
  given = dict(overrides)
  model = config.model
  if "model.hidden_size" not in given:
    return
  if "model.parameters" not in given:
    model.parameters = None
  elif model.parameters is not None:
    raise UserError(
      f"--config.model.hidden_size={model.hidden_size},"
      f" --config.model.parameters={model.parameters}: give one of the two"
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


def run_name(name: str, old: Config, new: Config) -> str:
  """Returns the default name of a run: the config and the changed fields."""
  parts = [name]
  for field, (_, value) in config_lib.changes(old, new, NAMING).items():
    parts.append(f"{field}={config_lib.text(value)}")
  # Replace path separators, and characters that Orbax reads as a pattern.
  name = re.sub(r"[/\\\[\]*?]", "_", "-".join(parts))
  if len(name.encode()) > 200:  # Most file systems allow 255 bytes.
    digest = hashlib.sha256(name.encode()).hexdigest()
    name = f"{name[:100]}-{digest[:12]}"
  return name


def share_cores(config: Config, mode: str = "train") -> tuple[int, int | None]:
  """Chooses the numbers of CPU devices, threads and a search's workers.

  The operations of small layers are too short to be split over cores. Two
  devices, each with half of the rows, are faster then; with large layers or few
  rows they are slower. A search has a worker on each GPU; without GPUs, a
  search of small layers has a worker on each core. Workers divide the cores and
  have a thread for each of theirs: with two threads on a core, steps of small
  layers take 1.2 times as long. The numbers of devices and threads affect
  rounding, so config.json keeps them.

  Returns:
    train.cpu_devices and train.cpu_threads. The fields that are None are set in
    the config.
  """
  model, train, search = config.model, config.train, config.search
  small = model.hidden_size <= 256
  if model.parameters:  # The hidden size is computed later, with JAX.
    small = model.parameters <= model.layers * 4 * 256**2
  cores = devices.cores()
  if mode == "search":
    gpus = devices.gpus()
    if search.workers is None:  # Trials of `coarse` depend on earlier trials.
      several = len(gpus) or (cores if small else 1)
      search.workers = several if search.method != "coarse" else 1
    cores = max(cores // search.workers, 1)
    if search.workers > 1 and train.cpu_threads is None and not gpus:
      train.cpu_threads = cores
  if train.cpu_devices is None:
    few = train.batch_size < 16
    train.cpu_devices = 2 if small and not few and cores > 1 else 1
  return train.cpu_devices, train.cpu_threads


def gpu_workers(config: Config, mode: str) -> bool:
  """Returns whether this process starts workers that compute on GPUs.

  It must not use the GPUs then: JAX would reserve most of their memory for it.
  """
  several = mode == "search" and (config.search.workers or 1) > 1
  return several and bool(devices.gpus())


def unused(
  config: Config, given: Iterable[str], defaults: Config
) -> Iterator[str]:
  """Yields a warning for each field that was set and has no effect.

  Args:
    config: the config of the run.
    given: the fields that the user has set.
    defaults: the defaults; a field with its default value is not reported.
  """
  fields, plain = config_lib.flat(config), config_lib.flat(defaults)
  for name in sorted(set(given)):
    conditions = FIELDS[name].used
    if (
      not conditions
      or fields[name] == plain[name]
      or any(_holds(condition, fields) for condition in conditions)
    ):
      continue
    others = dict.fromkeys(other for way in conditions for other in way)
    have = ", ".join(f"{other}={fields[other]!r}" for other in others)
    yield (
      f"config.{name}={fields[name]!r}: has no effect with {have}; it needs"
      f" {needs(conditions)}"
    )


def needs(conditions: Iterable[Condition]) -> str:
  """Returns the conditions of a field in words."""
  return "; or ".join(
    " and ".join(
      f"{name} {' or '.join(map(config_lib.text, values))}"
      for name, values in way.items()
    )
    for way in conditions
  )


def help_text(wanted: str) -> str:
  """Returns the defaults, rules and meanings of fields.

  Args:
    wanted: a field, such as `data.window`; a group, such as `data`; or `all`.

  Raises:
    UserError: there is no such field or group.
  """
  names = [
    name
    for name in FIELDS
    if wanted in ("all", name) or name.startswith(f"{wanted}.")
  ]
  if not names:
    groups = dict.fromkeys(name.partition(".")[0] for name in FIELDS)
    raise UserError(
      f"--help={wanted}: must be all, a field such as data.window, or one of"
      f" {', '.join(groups)}"
    )
  parts = []
  for name in names:
    field = FIELDS[name]
    rule = f"{field.rule.words}{', or none' if field.optional else ''}."
    if field.used:
      rule += f" It has an effect with {needs(field.used)}."
    parts.append(f"--config.{name}={config_lib.text(field.default)}")
    for line in (field.help, rule[0].upper() + rule[1:]):
      parts.append(textwrap.fill(line, 76, **_INDENT))
  return "\n".join(parts)


def _holds(condition: Condition, fields: dict[str, Any]) -> bool:
  """Returns whether the fields have these values, or a search chooses them."""
  return all(
    fields[name] in values
    or (name == "task" and fields[name] not in _TASKS)
    or fields.get(f"search.space.{name}") is not None
    for name, values in condition.items()
  )
