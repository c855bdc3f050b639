"""Fields that a run has other values of than it began with, and since when.

What a run is cannot change (`config.IDENTITY`). The other fields that training
rests on can; settings.csv has a row for each change: the step after which it
held, the field and both values.
"""

import copy
import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.errors import UserError
from seqrnn.runtime import files, manifest, sharding
from seqrnn.training.position import Position, limits_reached

_LIMIT = 2**24  # Bytes of settings.csv.


class Change(NamedTuple):
  """A row of settings.csv: a field that training has another value of.

  Attributes:
    step: of the last update with the old value.
    field: its dotted name.
    before: the old value.
    after: the new one.
  """

  step: int
  field: str
  before: Any
  after: Any


class Settings(NamedTuple):
  """The fields that a run has been trained with.

  Attributes:
    fields: those of config.json; as is asked where there is none.
    changes: the rows of settings.csv.
  """

  fields: dict[str, Any]
  changes: list[Change]


def read(workdir: Path, config: Config) -> list[Change]:
  """The rows of settings.csv, in order; none where no field has changed.

  Raises:
    UserError: it holds something else.
  """
  path = workdir / "settings.csv"
  if not path.exists():
    return []
  manifest.verify(path)
  content = files.read(path, _LIMIT).decode("utf-8", "replace")
  changes = []
  try:
    head, *rows = csv.reader(content.splitlines())
    if tuple(head) != Change._fields:
      raise ValueError(f"has the columns {', '.join(head)}")
    for step, name, *values in rows:
      before, after = (
        config_lib.parse(config, name, value) for value in values
      )
      changes.append(Change(int(step), name, before, after))
  except (ValueError, csv.Error) as error:
    columns = ", ".join(Change._fields)
    raise UserError(
      f"{path}: must have the columns {columns}, and in them a step, a field"
      f" and two values of it ({error}); move it away"
    ) from None
  return changes


def write(workdir: Path, changes: list[Change]):
  """Writes settings.csv, whole or not at all; no file where nothing changed.

  Raises:
    UserError: it cannot be written.
  """
  path = workdir / "settings.csv"
  if not changes:
    with files.write_errors(path):
      path.unlink(missing_ok=True)
    return
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(Change._fields)
  writer.writerows(
    (step, name, *map(config_lib.text, values))
    for step, name, *values in changes
  )
  manifest.write(workdir, {path.name: text.getvalue().encode()})


def _at(
  step: int, trained: Settings, config: Config
) -> tuple[list[Change], list[Change]]:
  """The changes before a step that a run is at, and those to make there.

  A change there or later has trained nothing that is left.
  """
  earlier = [change for change in trained.changes if change.step < step]
  held = dict(trained.fields)
  for change in reversed(trained.changes):
    if change.step >= step:
      held[change.field] = change.before
  wanted = config_lib.flat(config)
  return earlier, [
    Change(step, name, held[name], wanted[name])
    for name in sorted(config_lib.CHANGEABLE)
    if held[name] != wanted[name]
  ]


def settings_of(workdir: Path, config: Config) -> Settings:
  """What config.json and settings.csv of a run say.

  Raises:
    UserError: one of them is broken.
  """
  path = workdir / "config.json"
  fields = config_lib.flat(config)
  if path.exists():
    fields |= config_lib.flat(config_lib.read_json(path))
  return Settings(fields, read(workdir, config))


def apply_settings(
  workdir: Path, config: Config, position: Position, trained: Settings
) -> Config:
  """Writes settings.csv where fields change at this step.

  A field that training rests on is changed where a step will be trained with
  the new value, and not otherwise.

  Args:
    workdir: of the run.
    config: that is asked for.
    position: where training goes on.
    trained: the fields so far.

  Returns:
    what config.json is to say.

  Raises:
    UserError: nothing is left to train, and one of them differs. (A limit that
      is raised, and was not what ended the run, makes no difference.)
  """
  earlier, new = _at(position.step, trained, config)
  limits = limits_reached(config, position)
  if limits:
    refused = [change for change in new if not _raised(change)]
    if refused:
      told = "; ".join(
        f"{name}={config_lib.text(before)}, not {config_lib.text(after)}"
        for _, name, before, after in refused
      )
      raise UserError(
        f"{workdir}: finished at step {position.step}, trained with {told}:"
        " nothing is left to train with another value; raise"
        f" {' and '.join(limits)}, or name another --workdir"
      )
    config = copy.deepcopy(config)
    for _, name, before, after in new:
      print(
        f"{name} stays {config_lib.text(before)}, not {config_lib.text(after)}:"
        f" nothing is left to train, by {' and '.join(limits)}"
      )
      group, key = config_lib.locate(config, name)
      group[key] = before
    new = []
  for line in config_lib.differences(trained.fields, config):
    print(f"changed: {line}")
  if sharding.is_first():
    # Before config.json: killed between the two, the run does the same again.
    changes = [*earlier, *new] if position.step else []
    if changes != trained.changes:
      write(workdir, changes)
  return config


def rewind(workdir: Path, config: Config, step: int):
  """Brings settings.csv back to an earlier step, with the fields as they are.

  A run that goes back passes over damaged checkpoints, so perhaps to one before
  a change.
  """
  trained = Settings(config_lib.flat(config), read(workdir, config))
  earlier, new = _at(step, trained, config)
  write(workdir, [*earlier, *new] if step else [])


def _raised(change: Change) -> bool:
  """Whether it is a limit that ends a run later, or as it ended."""
  before, after = change.before, change.after
  return change.field in config_lib.LIMITS and (
    after is None or (before is not None and after > before)
  )
