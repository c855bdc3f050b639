"""manifest.json: checksums of the files of a workdir that modes read.

  sha256   the checksum of the fields `files` and `rows`
  files    name -> [[size, SHA-256], ...]: the file matches one of these
  rows     name -> [size, SHA-256]: the table begins with these bytes

While a file is replaced, the manifest has the checksums of the old and the new
file, so that it is valid even if the process is killed. Tables grow by rows;
the rows after the recorded bytes are not verified.
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
_LIMIT = 2**20  # Bytes of a manifest.
_CHUNK = 2**20
_TRIES = 3  # Attempts to verify a file that another process may be replacing.
_RETRY_SECONDS = 0.05  # Between two attempts.
_warned: list[Path] = []  # The first file without a manifest, once reported.

Sums = dict[str, Any]


def manifest_of(path: Path) -> Path:
  """Returns the path of a file's manifest.

  search.json has its own manifest, because a search and a run may share a
  workdir.
  """
  return path.with_name(
    f"search-{NAME}" if path.name == "search.json" else NAME
  )


def write(folder: Path, contents: dict[str, bytes]):
  """Writes files atomically, and records their checksums.

  A file that already has the content is not written.

  Raises:
    UserError: the manifest is invalid.
    MachineError: a file cannot be written.
  """
  [path] = {manifest_of(folder / name) for name in contents}
  record = _read(path) or {"files": {}, "rows": {}}
  new = {name: [_checksum(content)] for name, content in contents.items()}
  old = {name: _checksums_of(folder / name) for name in contents}
  changed = [name for name in contents if old[name] != new[name]]
  both = {name: new[name] + old[name] for name in changed}
  _save(path, {**record, "files": {**record["files"], **new, **both}})
  for name in changed:
    with files.atomic_write(folder / name, "wb") as file:
      file.write(contents[name])
  if changed:
    _save(path, {**record, "files": {**record["files"], **new}})


def record_files(folder: Path, paths: Iterable[Path]):
  """Writes the manifest of `folder`, for files that may yet be moved there.

  Raises:
    MachineError: the manifest cannot be written.
  """
  found = {path.name: _checksums_of(path) for path in paths}
  _save(folder / NAME, {"files": found, "rows": {}})


def record_rows(folder: Path, tables: dict[str, bytes]):
  """Records the checksums of tables; empty tables get none.

  Raises:
    UserError: the manifest is invalid.
    MachineError: the manifest cannot be written.
  """
  record = _read(folder / NAME)
  if record is None:  # The user has deleted it.
    return
  rows = {
    name: _checksum(content) for name, content in tables.items() if content
  }
  if rows != record["rows"]:
    _save(folder / NAME, {**record, "rows": rows})


def verify(path: Path):
  """Compares a file with the manifest in its folder, if there is one.

  Raises:
    MachineError: the file differs from its checksum.
    UserError: the manifest is invalid.
  """
  for tries in range(_TRIES):
    record = _read(manifest_of(path))
    if record is None or _matches(record, path):
      return
    if tries < _TRIES - 1:  # Another process may be replacing the file.
      time.sleep(_RETRY_SECONDS)
  name = manifest_of(path).name
  raise MachineError(
    f"{path}: differs from its checksum in {name}; restore the file, or delete"
    f" {name} if you have changed the file on purpose"
  )


def verify_all(folder: Path):
  """Verifies all files that the manifest of a folder names, as `verify`."""
  record = _read(folder / NAME)
  for name in {} if record is None else record["files"]:
    verify(folder / name)


def warn_if_missing(path: Path):
  """Warns on stderr that a file has no manifest, once in a process."""
  found = manifest_of(path)
  if not found.exists() and not _warned:
    _warned.append(path)
    line = f"{path.parent}: has no {found.name}, so its files are not verified"
    print(visible(line), file=sys.stderr)


def _matches(record: Sums, path: Path) -> bool:
  if path.name in record["rows"]:
    size, sha256 = record["rows"][path.name]
    try:
      with path.open("rb") as file:
        return _digest(file, size) == sha256
    except FileNotFoundError:  # The user has moved it, as messages advise.
      return True
  if path.name in record["files"]:
    recorded = record["files"][path.name]
    return any(found in recorded for found in _checksums_of(path))
  return path.suffix == ".csv"  # A table without rows has no checksum.


def _checksum(content: bytes) -> list:
  return [len(content), hashlib.sha256(content).hexdigest()]


def checksum(path: Path) -> list:
  """Returns the size and the SHA-256 of a file."""
  with path.open("rb") as file:
    size = os.fstat(file.fileno()).st_size
    return [size, _digest(file, size)]


def _checksums_of(path: Path) -> list[list]:
  """Returns [checksum(path)], or [] if the file is missing."""
  try:
    return [checksum(path)]
  except FileNotFoundError:
    return []


def _digest(file: IO[bytes], size: int) -> str | None:
  """Returns the SHA-256 of the first `size` bytes; None if there are fewer."""
  digest = hashlib.sha256()
  while size:
    chunk = file.read(min(size, _CHUNK))
    if not chunk:
      return None
    digest.update(chunk)
    size -= len(chunk)
  return digest.hexdigest()


def _manifest_sha256(record: Sums) -> str:
  """Returns the checksum of the manifest's own fields."""
  parts = json.dumps([record["files"], record["rows"]], sort_keys=True)
  return hashlib.sha256(parts.encode()).hexdigest()


def _save(path: Path, record: Sums):
  content = {
    "sha256": _manifest_sha256(record),
    "files": record["files"],
    "rows": record["rows"],
  }
  with files.atomic_write(path) as file:
    file.write(json.dumps(content, indent=1) + "\n")


def _read(path: Path) -> Sums | None:
  """Reads a manifest; returns None if the file is missing.

  Raises:
    UserError: the manifest is invalid.
  """
  record: Any = None
  try:
    record = files.read_json(path, _LIMIT)
  except FileNotFoundError:
    return None
  except UserError:  # It is not JSON, which is reported below.
    pass
  try:
    valid = record["sha256"] == _manifest_sha256(record)
    sums = [s for file_sums in record["files"].values() for s in file_sums]
    sums += record["rows"].values()
    valid = valid and all(
      type(size) is int and size >= 0 and type(text) is str
      for size, text in sums
    )
  except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
    valid = False
  if not valid:
    raise MachineError(
      f"{path}: is damaged; restore it, or delete it if the files in its folder"
      " are correct"
    )
  return record
