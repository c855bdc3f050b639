"""Warnings about settings that have no effect."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seqrnn.config import read as config_lib
from seqrnn.config.field import WRITTEN, Condition
from seqrnn.config.read import FIELDS, Config
from seqrnn.errors import visible

# Groups of fields that only some of the other modes read. Train and search read
# or record all fields, but for those of _WRITERS.
_READERS = {
  "seed": ("describe", "detect", "predict", "report"),
  "optimizer": ("describe", "detect"),
  "schedule": ("describe", "detect"),
  "evaluate": ("evaluate",),
  "describe": ("describe",),
  "predict": ("predict",),
  "sample": ("sample", "report"),
  "report": ("report",),
  "search": (),
}
# Group -> the modes that use its fields of places to write to.
_WRITERS = {"detect": ("detect", "review"), "search": ("search",)}
# Field, or group of fields -> the modes that read the paths of input there. Of
# other groups, _READERS has them.
_TRAINS = ("train", "search", "describe", "detect", "review")
_INPUTS = {
  "data": (*_TRAINS, "evaluate", "predict", "embed", "report"),
  "search": ("search",),
  "model": _TRAINS,
  "train": _TRAINS,
  "detect": ("detect",),
  "embed": ("embed",),
  "detect.path": ("detect", "follow"),
  "detect.input": ("follow",),
}
# Fields with which their mode reads no file of the group data.
_WITHOUT_DATA = ("predict.text", "predict.path", "embed.path")
# The tasks of this project. A task of the user may use any field.
_TASKS = {
  task
  for field in FIELDS.values()
  for condition in field.used
  for task in condition.get("task", ())
}


def report(
  mode: str,
  by_flags: set[str],
  config: Config,
  plain: Config,
  given: Iterable[str],
  read: Iterable[str],
):
  """Prints the warnings on stderr.

  Args:
    mode: the mode.
    by_flags: the fields that flags set.
    config: the config of the run.
    plain: the same without flags.
    given: the fields that the user has set.
    read: those of flags that only the mode needs.
  """
  defaults = config_lib.defaults()
  # What only flags make useless in a config is no mistake.
  vain = useless(plain, set(given) - by_flags, defaults)
  for line in (
    *unused(config, by_flags.union(vain), defaults),
    *unread(config, read, mode),
  ):
    print("warning:", visible(line), file=sys.stderr)


def show_inputs(path: Path, config: Config, mode: str, given: set[str]):
  """Prints on stderr which paths a mode reads because a workdir names them.

  Args:
    path: the file with the config of the run.
    config: this config, with the fields that flags set.
    mode: the mode; that of --follow is follow.
    given: the fields that are not from the file.
  """
  fields = config_lib.flat(config)
  defaults = config_lib.defaults()
  others = config_lib.changes(defaults, config, _WITHOUT_DATA)
  without_data = any(name.startswith(f"{mode}.") for name in others)
  changes = config_lib.changes(defaults, config, config_lib.PLACES)
  for name in sorted(changes.keys() - given):
    group = name.partition(".")[0]
    modes = _INPUTS.get(name) or _INPUTS.get(group) or _READERS[group]
    if mode in modes and not (without_data and group == "data"):
      line = f"{path}: input {name}={fields[name]!r}"
      print(visible(line), file=sys.stderr)


def unread(config: Config, by_flags: Iterable[str], mode: str) -> Iterator[str]:
  """Yields a warning for each flag whose field the mode does not read."""
  for name in sorted(by_flags):
    group = name.partition(".")[0]
    modes = ("train", "search", *_READERS.get(group, (mode,)))
    if config_lib.PLACES.get(name) == WRITTEN:
      modes = _WRITERS[group]
    if mode in ("config", *modes):
      continue
    own = f"{mode}.{name.rpartition('.')[2]}"
    hint = f"; did you mean config.{own}?" if own in FIELDS else ""
    use = f"the modes {', '.join(modes)} use it"
    if len(modes) == 1:
      use = f"--mode={modes[0]} uses it"
    yield (
      f"config.{name}={config_lib.flat(config)[name]!r}: has no effect with"
      f" --mode={mode}; {use}{hint}"
    )


def unused(
  config: Config, given: Iterable[str], defaults: Config
) -> Iterator[str]:
  """Yields a warning for each field that was set and has no effect.

  Args:
    config: the config of the run.
    given: the fields that the user has set.
    defaults: the defaults; a field with its default value is not reported.
  """
  fields = config_lib.flat(config)
  for name in useless(config, given, defaults):
    conditions = FIELDS[name].used
    others = dict.fromkeys(other for way in conditions for other in way)
    have = ", ".join(f"{other}={fields[other]!r}" for other in others)
    yield (
      f"config.{name}={fields[name]!r}: has no effect with {have}; it needs"
      f" {needs(conditions)}"
    )


def useless(
  config: Config, given: Iterable[str], defaults: Config
) -> list[str]:
  """Returns the fields, of those given, that `unused` reports."""
  fields, plain = config_lib.flat(config), config_lib.flat(defaults)
  return [
    name
    for name in sorted(set(given))
    if FIELDS[name].used
    and fields[name] != plain[name]
    and not any(_holds(condition, fields) for condition in FIELDS[name].used)
  ]


def needs(conditions: Iterable[Condition]) -> str:
  """Returns the conditions of a field in words."""
  return "; or ".join(
    " and ".join(
      f"{name} {' or '.join(map(config_lib.text, values))}"
      for name, values in way.items()
    )
    for way in conditions
  )


def _holds(condition: Condition, fields: dict[str, Any]) -> bool:
  """Returns whether the fields have these values, or a search chooses them."""
  return all(
    fields[name] in values
    or (name == "task" and fields[name] not in _TASKS)
    or name in config_lib.searched(fields)
    for name, values in condition.items()
  )
