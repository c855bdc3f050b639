"""What a run has started from, as start.json in its workdir has it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from seqrnn.errors import UserError
from seqrnn.runtime import files, manifest

RECORD = "start.json"
_LIMIT = 2**24  # Bytes of a record, which may have 10**6 new rows.


class Record(NamedTuple):
  """What a run has started from: the content of start.json.

  Attributes:
    workdir: of the trained run, as `train.start_from` had it.
    step: of its checkpoint.
    sha256: of the manifest of the checkpoint, which has those of its files.
    taken: the parts of the model that were taken.
    new: its other parts.
    left: the parts of the trained run that were not taken.
    partly: of each part of `taken` with new rows, the share that was taken, as
      "1 of 2 labels".
    new_rows: the new rows of these parts, by what they stand for.
  """

  workdir: str
  step: int
  sha256: str
  taken: list[str]
  new: list[str]
  left: list[str]
  partly: Mapping[str, str]
  new_rows: Mapping[str, list[int]]

  @property
  def parts(self) -> list[str]:
    """The parts that were taken, with the shares of those of `partly`."""
    return [
      f"{name} ({self.partly[name]})" if name in self.partly else name
      for name in self.taken
    ]

  def lines(self) -> Iterator[str]:
    """Returns lines for the console."""
    yield f"started from {self.workdir}, step {self.step}"
    lists = {"taken": self.parts, "new": self.new, "left": self.left}
    for name, parts in lists.items():
      yield f"  {name}: {', '.join(parts) or 'nothing'}"


def encoded(record: Record) -> bytes:
  """Returns the content of start.json."""
  return (json.dumps(record._asdict(), indent=1) + "\n").encode()


def read(workdir: Path) -> Record | None:
  """Reads what a run has started from; None: from nothing.

  Raises:
    UserError: start.json is no such record.
  """
  path = workdir / RECORD
  if not path.exists():
    return None
  manifest.verify(path)
  try:
    return Record(**files.read_json(path, _LIMIT))
  except TypeError:
    names = ", ".join(Record._fields)
    raise UserError(f"{path}: must be an object with {names}") from None
