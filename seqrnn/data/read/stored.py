"""Reads files that a mode wrote, which may be damaged or edited."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.data.read.columns import Arrays
from seqrnn.errors import UserError
from seqrnn.runtime import files

_LIMIT = 2**24  # Bytes of a JSON file, at most.
_REMEDY = "run --mode=detect again"
_FAULTS = (
  *(OSError, EOFError, RecursionError, MemoryError),
  *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
)


@contextmanager
def reading(path: Path, remedy: str = _REMEDY) -> Iterator[None]:
  """Turns an error of a damaged file into one with the file and the remedy.

  Raises:
    UserError: in place of any error that a damaged file causes.
  """
  try:
    yield
  except UserError as error:
    raise UserError(f"{error}; {remedy}") from None
  except _FAULTS as error:
    reason = getattr(error, "strerror", None) or error or type(error).__name__
    raise UserError(
      f"{path}: must be as it was written ({reason}); {remedy}"
    ) from None


def read_object(path: Path, remedy: str = _REMEDY) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    UserError: the file cannot be read, or has no JSON object.
  """
  with reading(path, remedy):
    content = files.read_json(path, _LIMIT)
    if not isinstance(content, dict):
      raise ValueError("is not a JSON object")
  return content


def under(start: str, arrays: Arrays) -> Arrays:
  """Arrays, by the names that they have in a file: all start so."""
  return {start + name: array for name, array in arrays.items()}


def named(arrays: Arrays, start: str) -> Arrays:
  """The arrays whose names in a file start so, by the rest of their names."""
  return {
    name.removeprefix(start): array
    for name, array in arrays.items()
    if name.startswith(start)
  }


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray | str]):
  """Writes an archive of arrays, with a checksum of each."""
  with files.atomic_write(path, "wb") as file:
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load_arrays(path: Path) -> Arrays:
  """The arrays of an archive.

  Raises:
    UserError: the file is damaged.
  """
  with reading(path), path.open("rb") as file:
    try:
      with np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
        if any(x.ndim and x.dtype.kind not in "biuf" for x in arrays.values()):
          raise ValueError("an array has no numbers")
        return arrays
    except Exception as error:  # A damaged archive may raise any exception.
      raise ValueError(str(error)) from None
