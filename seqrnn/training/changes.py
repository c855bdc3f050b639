"""Records the training fields that change when a run is resumed.

Fields that identify a run (`config.IDENTITY`) are fixed. The other training
fields may change; settings.csv has a row for each change: the step after which
the new value is used, the field, and both values.
"""

import copy
import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.errors import UserError
from seqrnn.runtime import files, manifest, sharding
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config
from seqrnn.training.position import Position, limits_reached

_LIMIT = 2**24  # Bytes of settings.csv.


class Change(NamedTuple):
  """A row of settings.csv: a changed field.

  Attributes:
    step: the step of the last update with the old value.
    field: the dotted name of the field.
    before: the old value.
    after: the new value.
  """

  step: int
  field: str
  before: Any
  after: Any


class Settings(NamedTuple):
  """The fields that a run has been trained with.

  Attributes:
    fields: the fields of config.json, or of the given config if it is missing.
    changes: the rows of settings.csv.
  """

  fields: dict[str, Any]
  changes: list[Change]


def read(workdir: Path, config: Config) -> list[Change]:
  """Returns the rows of settings.csv, in order; [] where it is missing.

  Raises:
    UserError: a row or the header is invalid.
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
      f"{path}: must have the columns {columns}, with a step, a field and two"
      f" values of the field ({error}); move it away"
    ) from None
  return changes


def write(workdir: Path, changes: list[Change]):
  """Writes settings.csv atomically; without changes, removes it.

  Raises:
    UserError: the file cannot be written.
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


def _changes_at(
  step: int, trained: Settings, config: Config
) -> tuple[list[Change], list[Change]]:
  """Returns the recorded changes before a step, and new changes at this step.

  Changes recorded at this step or later are dropped: no update that the run
  still has was made with their new values.
  """
  earlier = [change for change in trained.changes if change.step < step]
  old = dict(trained.fields)
  for change in reversed(trained.changes):
    if change.step >= step:
      old[change.field] = change.before
  new = config_lib.flat(config)
  return earlier, [
    Change(step, name, old[name], new[name])
    for name in sorted(config_lib.CHANGEABLE)
    if old[name] != new[name]
  ]


def settings_of(workdir: Path, config: Config) -> Settings:
  """Reads the fields of config.json and the changes of settings.csv.

  Raises:
    UserError: one of the two files is invalid.
  """
  path = workdir / "config.json"
  fields = config_lib.flat(config)
  if path.exists():
    fields |= config_lib.read_record(path)
  return Settings(fields, read(workdir, config))


def apply_settings(
  workdir: Path, config: Config, position: Position, trained: Settings
) -> Config:
  """Writes the fields that change at this step to settings.csv.

  A training field changes only if a step will be trained with its new value.

  Args:
    workdir: the folder of the run.
    config: the config that the user asks for.
    position: the position from which training resumes.
    trained: the fields so far.

  Returns:
    the config to write to config.json.

  Raises:
    UserError: the run has finished, and a training field differs. A raised
      limit is not refused if another limit has ended the run.
  """
  earlier, new = _changes_at(position.step, trained, config)
  limits = limits_reached(config, position)
  if limits:
    refused = [change for change in new if not _raised(change)]
    if refused:
      listed = "; ".join(
        f"{name}={config_lib.text(before)}, not {config_lib.text(after)}"
        for _, name, before, after in refused
      )
      raise UserError(
        f"{workdir}: finished at step {position.step}, trained with {listed};"
        f" to train with another value, raise {' and '.join(limits)}, or name"
        " another --workdir"
      )
    config = copy.deepcopy(config)
    for _, name, before, after in new:
      print(
        f"{name} stays {config_lib.text(before)}, not {config_lib.text(after)}:"
        f" {' and '.join(limits)} has ended the training"
      )
      group, key = config_lib.locate(config, name)
      group[key] = before
    new = []
  for line in config_lib.differences(trained.fields, config):
    print(f"changed: {line}")
  if sharding.is_first():
    # settings.csv before config.json: if the process is killed in between, the
    # repeated command finds the same changes.
    changes = [*earlier, *new] if position.step else []
    if changes != trained.changes:
      write(workdir, changes)
  return config


def rewind(workdir: Path, config: Config, step: int):
  """Rolls settings.csv back to an earlier step; the fields stay as they are.

  The checkpoint of this step may be older than a recorded change.
  """
  trained = Settings(config_lib.flat(config), read(workdir, config))
  earlier, new = _changes_at(step, trained, config)
  write(workdir, [*earlier, *new] if step else [])


def _raised(change: Change) -> bool:
  """Returns whether the change raises or removes a limit of training."""
  before, after = change.before, change.after
  return change.field in config_lib.LIMITS and (
    after is None or (before is not None and after > before)
  )
