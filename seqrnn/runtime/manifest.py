"""manifest.json: checksums of the files of a folder that are read again.

  format   1; a file of a later format is refused
  sha256   of the two other fields
  files    name -> [[size, SHA-256], ...]: the file is one of these
  rows     name -> [size, SHA-256]: the table begins with these bytes

A file may be one of two while it is replaced: the older one, or the new one.
So whenever the process is killed, what is there is what the manifest says.
Tables grow by rows; what stands behind the bytes recorded is not verified.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from seqrnn.errors import MachineError, UserError, visible
from seqrnn.runtime import files

NAME = "manifest.json"
FORMAT = 1
_LIMIT = 2**20  # Bytes of a manifest.
_CHUNK = 2**20
_TRIES = 3  # At reading a file and its manifest while both are replaced.
_MOMENT = 0.05  # Seconds between two of them.
_warned: list[Path] = []  # The folder that was warned about, if one was.

Sums = dict[str, Any]


def manifest_of(path: Path) -> Path:
  """The manifest that a file is in: a search may lie where a run does."""
  return path.with_name(
    f"search-{NAME}" if path.name == "search.json" else NAME
  )


def write(folder: Path, contents: dict[str, bytes]):
  """Writes files, each whole or not at all, and their checksums.

  A file that has its content already is left as it is.

  Raises:
    UserError: there is a manifest, which is none.
    MachineError: they cannot be written.
  """
  [path] = {manifest_of(folder / name) for name in contents}
  record = _read(path) or {"files": {}, "rows": {}}
  new = {name: [_sums(content)] for name, content in contents.items()}
  old = {name: _present(folder / name) for name in contents}
  changed = [name for name in contents if old[name] != new[name]]
  both = {name: new[name] + old[name] for name in changed}
  _save(path, {**record, "files": {**record["files"], **new, **both}})
  for name in changed:
    with files.atomic_write(folder / name, "wb") as file:
      file.write(contents[name])
  if changed:
    _save(path, {**record, "files": {**record["files"], **new}})


def record_files(folder: Path, paths: Iterable[Path]):
  """Writes the manifest of files that are, or will be, in a folder.

  Raises:
    MachineError: the manifest cannot be written.
  """
  found = {path.name: _present(path) for path in paths}
  _save(folder / NAME, {"files": found, "rows": {}})


def record_rows(folder: Path, tables: dict[str, bytes]):
  """Records the checksums of tables; empty tables have none.

  Raises:
    UserError: there is a manifest, which is none.
    MachineError: it cannot be written.
  """
  record = _read(folder / NAME)
  if record is None:  # It was deleted on purpose.
    return
  rows = {name: _sums(content) for name, content in tables.items() if content}
  if rows != record["rows"]:
    _save(folder / NAME, {**record, "rows": rows})


def verify(path: Path):
  """Compares a file with the manifest beside it, if there is one.

  Raises:
    MachineError: the file differs from its checksum.
    UserError: the manifest is none, or of a later version.
  """
  for tries in range(_TRIES):
    record = _read(manifest_of(path))
    if record is None or _matches(record, path):
      return
    if tries < _TRIES - 1:  # Both may be replaced just now.
      time.sleep(_MOMENT)
  name = manifest_of(path).name
  raise MachineError(
    f"{path}: is not what {name} beside it records; restore it, or delete"
    f" {name} if you have changed it on purpose"
  )


def verify_all(folder: Path):
  """As `verify`, of all files that the manifest of a folder names."""
  record = _read(folder / NAME)
  for name in {} if record is None else record["files"]:
    verify(folder / name)


def warn_if_missing(path: Path):
  """Warns on stderr, once a process, where a file has no manifest."""
  found = manifest_of(path)
  if not found.exists() and not _warned:
    _warned.append(path)
    line = (
      f"{path.parent}: has no {found.name}, so its files are not verified; an"
      " older version wrote them, or it was deleted"
    )
    print(visible(line), file=sys.stderr)


def _matches(record: Sums, path: Path) -> bool:
  if path.name in record["rows"]:
    size, sha256 = record["rows"][path.name]
    try:
      with path.open("rb") as file:
        return _digest(file, size) == sha256
    except FileNotFoundError:  # It was moved away, as messages advise.
      return True
  if path.name in record["files"]:
    return any(found in record["files"][path.name] for found in _present(path))
  return path.suffix == ".csv"  # A table that has no row yet.


def _sums(content: bytes) -> list:
  return [len(content), hashlib.sha256(content).hexdigest()]


def checksum(path: Path) -> list:
  """Returns the size and the SHA-256 of a file."""
  with path.open("rb") as file:
    size = os.fstat(file.fileno()).st_size
    return [size, _digest(file, size)]


def _present(path: Path) -> list[list]:
  """Returns [checksum] of a file, or [] where it is missing."""
  try:
    return [checksum(path)]
  except FileNotFoundError:
    return []


def _digest(file: IO[bytes], size: int) -> str | None:
  """The SHA-256 of the first bytes of a file; None where it has fewer."""
  digest = hashlib.sha256()
  while size:
    chunk = file.read(min(size, _CHUNK))
    if not chunk:
      return None
    digest.update(chunk)
    size -= len(chunk)
  return digest.hexdigest()


def _own(record: Sums) -> str:
  """The checksum of a manifest itself."""
  parts = json.dumps([record["files"], record["rows"]], sort_keys=True)
  return hashlib.sha256(parts.encode()).hexdigest()


def _save(path: Path, record: Sums):
  content = {
    "format": FORMAT,
    "sha256": _own(record),
    "files": record["files"],
    "rows": record["rows"],
  }
  with files.atomic_write(path) as file:
    file.write(json.dumps(content, indent=1) + "\n")


def _read(path: Path) -> Sums | None:
  """A manifest; None where there is none.

  Raises:
    UserError: it is none, or of a later version.
  """
  record: Any = None
  try:
    record = files.read_json(path, _LIMIT)
  except FileNotFoundError:
    return None
  except UserError:  # Not JSON, which is told below.
    pass
  found = record.get("format") if isinstance(record, dict) else None
  if type(found) is int and found > FORMAT:
    raise UserError(
      f"{path}: format={found}: this version reads formats up to {FORMAT}; a"
      " later version of seqrnn wrote it"
    )
  try:
    holds = type(found) is int and found in range(1, FORMAT + 1)
    holds = holds and record["sha256"] == _own(record)
    sums = [s for own in record["files"].values() for s in own]
    sums += record["rows"].values()
    holds = holds and all(
      type(size) is int and size >= 0 and type(text) is str
      for size, text in sums
    )
  except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
    holds = False
  if not holds:
    raise MachineError(
      f"{path}: is damaged; restore it, or delete it if the files beside it are"
      " as you want them"
    )
  return record
