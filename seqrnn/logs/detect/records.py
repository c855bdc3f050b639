"""Reads files that detection wrote, which may be damaged or edited."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.errors import UserError
from seqrnn.runtime import files

# Arrays of a calibration with a number for each row, beside scores.
COLUMNS = ("counts", "choosing", "model", "sizes")
_LIMIT = 2**24  # Bytes of a JSON file, at most.
_REMEDY = "run --mode=detect again"
_FAULTS = (
  *(OSError, EOFError, csv.Error, RecursionError),
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
    content = json.loads(files.read_bytes(path, _LIMIT))
    if not isinstance(content, dict):
      raise ValueError("is not a JSON object")
  return content


def load_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of an archive; each is a list of numbers, or a text.

  Raises:
    UserError: the file is damaged.
  """
  with reading(path), path.open("rb") as file:
    try:
      with np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    except Exception as error:  # A damaged archive may raise any exception.
      raise ValueError(str(error)) from None
    for array in arrays.values():
      is_text = array.dtype.kind == "U" and not array.ndim
      if not is_text and (array.ndim != 1 or array.dtype.kind not in "bfiu"):
        raise ValueError("has an array that is not a list of numbers")
  return arrays


def read_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of a calibration, and `rests_on`, its settings and checksums.

  Raises:
    UserError: the file is damaged, or its arrays do not belong together.
  """
  arrays = load_arrays(path)
  with reading(path):
    check_lengths(arrays)
  return arrays


def check_lengths(arrays: dict[str, np.ndarray]):
  """Raises ValueError if arrays of a calibration do not belong together."""
  events = {len(arrays[name]) for name in ("nll", "event_counts")}
  events.add(int(arrays["sizes"].sum()))
  injected = {len(x) for n, x in arrays.items() if n.startswith("injected ")}
  sessions = {
    len(x)
    for name, x in arrays.items()
    if name in COLUMNS or name.startswith("score ")
  }
  if max(len(events), len(sessions), len(injected)) > 1:
    raise ValueError("has arrays of different lengths")


def without(
  arrays: dict[str, np.ndarray], left_out: np.ndarray
) -> dict[str, np.ndarray]:
  """The arrays without some of the sessions and their events."""
  events = np.repeat(left_out, arrays["sizes"])
  selected = {}
  for name, array in arrays.items():
    if name in ("nll", "event_counts"):
      array = array[~events]
    elif name in COLUMNS or name.startswith("score "):
      array = array[~left_out]
    selected[name] = array
  return selected


def named(arrays: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
  """The arrays whose names start so, by the rest of their names."""
  return {
    name.removeprefix(start): array
    for name, array in arrays.items()
    if name.startswith(start)
  }
