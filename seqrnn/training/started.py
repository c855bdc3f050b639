"""What a run has started from, as start.json in its workdir has it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seqrnn.errors import UserError
from seqrnn.runtime import files, manifest

RECORD = "start.json"
_LIMIT = 2**20  # Bytes of a record.


class Record(NamedTuple):
  """What a run has started from: the content of start.json.

  Attributes:
    workdir: of the trained run, as `train.start_from` had it.
    step: of its checkpoint.
    sha256: of the manifest of the checkpoint, which has those of its files.
    taken: the parts of the model that were taken.
    new: its other parts.
    left: the parts of the trained run that were not taken.
  """

  workdir: str
  step: int
  sha256: str
  taken: list[str]
  new: list[str]
  left: list[str]

  def lines(self) -> Iterator[str]:
    """Returns lines for the console."""
    yield f"started from {self.workdir}, step {self.step}"
    for name in ("taken", "new", "left"):
      yield f"  {name}: {', '.join(getattr(self, name)) or 'nothing'}"


def pretrained(workdir: Path) -> Path:
  """Returns the folder of the run on `data.pretrain_path`."""
  return workdir / "pretrained"


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
