"""What detection has written, read again; anyone may have changed it."""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.errors import UserError
from seqrnn.runtime import files

FORMS = ("csv", "jsonl", "csv.gz", "jsonl.gz")
_LIMIT = 2**24  # Bytes of a JSON file, and of a line of a table.
# A packed file may hold so many times its own size, beside _LIMIT: zeros, of
# which a megabyte of a file could hold a gigabyte, shrink more than tables do.
_RATIO = 400
_REMEDY = "run --mode=detect again"
_FAULTS = (
  *(OSError, EOFError, zlib.error, csv.Error, RecursionError),
  *(ValueError, TypeError, KeyError, AttributeError, OverflowError),
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
  """Names the file, and what to do, where its content is not as it was written.

  Raises:
    UserError: in place of whatever a damaged file makes of reading it.
  """
  try:
    yield
  except UserError as error:
    raise UserError(f"{error}; {_REMEDY}") from None
  except _FAULTS as error:
    reason = getattr(error, "strerror", None) or error or type(error).__name__
    raise UserError(
      f"{path}: must be as --mode=detect writes it ({reason}); {_REMEDY}"
    ) from None


def read_object(path: Path) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    UserError: it is no such file.
  """
  with reading(path):
    found = json.loads(files.read(path, _LIMIT))
    if not isinstance(found, dict):
      raise ValueError("is no JSON object")
  return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of a calibration, and the text that says what it rests on.

  Raises:
    UserError: it is no such file, or its arrays do not belong together.
  """
  with reading(path), path.open("rb") as file:
    try:
      with np.load(file, allow_pickle=False) as found:
        size = sum(info.file_size for info in found.zip.infolist())
        if size > _most(path):
          raise ValueError("holds too much for its size")
        arrays = {name: found[name] for name in found.files}
    except Exception as error:  # Of a damaged archive anything may come.
      raise ValueError(str(error)) from None
    numbers = {name: x for name, x in arrays.items() if name != "rests_on"}
    if any(x.ndim != 1 or x.dtype.kind not in "fiu" for x in numbers.values()):
      raise ValueError("has an array that is no list of numbers")
    events = {len(arrays[name]) for name in ("nll", "event_counts")}
    sessions = {
      len(x)
      for name, x in numbers.items()
      if name == "counts" or name.startswith("score ")
    }
    if len(events) > 1 or len(sessions) > 1:
      raise ValueError("has arrays of different lengths")
  return arrays


def table(folder: Path, name: str) -> Path | None:
  """The file that a table was written to, in one of its forms."""
  paths = (folder / f"{name}.{form}" for form in FORMS)
  return next((path for path in paths if path.exists()), None)


def rows(path: Path) -> Iterator[dict[str, Any]]:
  """The rows of a table, as they are read: it may be larger than memory.

  Raises:
    UserError: it is no such table.
  """
  packed = path.suffix == ".gz"
  csv.field_size_limit(max(csv.field_size_limit(), _LIMIT))
  with reading(path), gzip.open(path) if packed else path.open("rb") as file:
    lines = _lines(file, _most(path) if packed else math.inf)
    if ".csv" in path.suffixes:
      yield from csv.DictReader(lines)
      return
    for line in lines:
      if not isinstance(row := json.loads(line), dict):
        raise ValueError("a row is no object")
      yield row


def number(path: Path, row: dict[str, Any], name: str) -> float:
  """A number in a row of a table; infinity is one.

  Raises:
    UserError: it is none.
  """
  with reading(path):
    try:
      value = float(row[name])
    except (KeyError, TypeError, ValueError, OverflowError):
      value = math.nan
    if math.isnan(value):
      raise ValueError(
        f"{name}={row.get(name)!r} of session {row.get('session')!r} is no"
        " number"
      )
  return value


def _most(path: Path) -> int:
  """How many bytes a packed file may hold."""
  return _LIMIT + _RATIO * path.stat().st_size


def _lines(file: io.BufferedIOBase, most: float) -> Iterator[str]:
  """The lines of a table, with what ends them; `most` bytes of all."""
  while line := file.readline(_LIMIT + 1):
    most -= len(line)
    if len(line) > _LIMIT:
      raise ValueError(f"has a line of more than {_LIMIT:,} bytes")
    if most < 0:
      raise ValueError("holds too much for its size")
    yield line.decode("utf-8", "backslashreplace")
