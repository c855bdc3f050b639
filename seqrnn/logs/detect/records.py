"""Reads files that detection wrote, which may be damaged or edited."""

import csv
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

# Arrays of a calibration with a number for each row, beside scores.
COLUMNS = ("counts", "choosing", "model", "sizes")
_LIMIT = 2**24  # Bytes of a JSON file, and of a line of a table, at most.
# A compressed file may hold _LIMIT bytes and this multiple of its own size. No
# table compresses better, but a megabyte of a malicious file, which holds only
# zeros, could hold a gigabyte.
_RATIO = 400
_REMEDY = "run --mode=detect again"
_TOO_LARGE = "is too large when decompressed"
_FAULTS = (
  *(OSError, EOFError, zlib.error, csv.Error, RecursionError),
  *(ValueError, TypeError, KeyError, AttributeError, OverflowError),
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
  """Turns an error of a damaged file into one with the file and the remedy.

  Raises:
    UserError: in place of any error that a damaged file causes.
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
    UserError: the file cannot be read, or has no JSON object.
  """
  with reading(path):
    found = json.loads(files.read(path, _LIMIT))
    if not isinstance(found, dict):
      raise ValueError("is not a JSON object")
  return found


def load(path: Path) -> dict[str, np.ndarray]:
  """The arrays of an archive; each is a list of numbers, or a text.

  Raises:
    UserError: the file is damaged.
  """
  with reading(path), path.open("rb") as file:
    try:
      with np.load(file, allow_pickle=False) as found:
        size = sum(info.file_size for info in found.zip.infolist())
        if size > _most(path):
          raise ValueError(_TOO_LARGE)
        arrays = {name: found[name] for name in found.files}
    except Exception as error:  # A damaged archive may raise any exception.
      raise ValueError(str(error)) from None
    if any(
      x.ndim != 1 or x.dtype.kind not in "bfiu"
      for x in arrays.values()
      if x.dtype.kind != "U" or x.ndim
    ):
      raise ValueError("has an array that is not a list of numbers")
  return arrays


def read_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of a calibration, and `rests_on`, its settings and checksums.

  Raises:
    UserError: the file is damaged, or its arrays do not belong together.
  """
  arrays = load(path)
  with reading(path):
    events = {len(arrays[name]) for name in ("nll", "event_counts")}
    events.add(int(arrays["sizes"].sum()))
    injected = {
      len(x) for name, x in arrays.items() if name.startswith("injected ")
    }
    sessions = {
      len(x)
      for name, x in arrays.items()
      if name in COLUMNS or name.startswith("score ")
    }
    if max(len(events), len(sessions), len(injected)) > 1:
      raise ValueError("has arrays of different lengths")
  return arrays


def without(
  arrays: dict[str, np.ndarray], left_out: np.ndarray
) -> dict[str, np.ndarray]:
  """The arrays without some of the sessions and their events."""
  events = np.repeat(left_out, arrays["sizes"])
  found = {}
  for name, array in arrays.items():
    if name in ("nll", "event_counts"):
      array = array[~events]
    elif name in COLUMNS or name.startswith("score "):
      array = array[~left_out]
    found[name] = array
  return found


def named(arrays: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
  """The arrays whose names start so, by the rest of their names."""
  return {
    name.removeprefix(start): array
    for name, array in arrays.items()
    if name.startswith(start)
  }


def table(folder: Path, name: str) -> Path | None:
  """The file of a table; None if there is none."""
  path = folder / f"{name}.csv"
  return path if path.exists() else None


def rows(path: Path) -> Iterator[dict[str, Any]]:
  """Yields the rows of a table, which may be larger than memory.

  Raises:
    UserError: the table is damaged.
  """
  csv.field_size_limit(max(csv.field_size_limit(), _LIMIT))
  with reading(path), path.open("rb") as file:
    yield from csv.DictReader(_lines(file))


def number(path: Path, row: dict[str, Any], name: str) -> float:
  """A number in a row of a table, which may be infinite.

  Raises:
    UserError: the value is not a number.
  """
  with reading(path):
    try:
      value = float(row[name])
    except (KeyError, TypeError, ValueError, OverflowError):
      value = math.nan
    if math.isnan(value):
      raise ValueError(
        f"{name}={row.get(name)!r} of session {row.get('session')!r} is not a"
        " number"
      )
  return value


def _most(path: Path) -> int:
  """The maximal decompressed size of a file, in bytes."""
  return _LIMIT + _RATIO * path.stat().st_size


def _lines(file: io.BufferedIOBase) -> Iterator[str]:
  """Yields the lines of a table with their line ends."""
  while line := file.readline(_LIMIT + 1):
    if len(line) > _LIMIT:
      raise ValueError(f"has a line of more than {_LIMIT:,} bytes")
    yield line.decode("utf-8", "backslashreplace")
