"""Music: pieces as frames of 88 notes, from a file or made by rules."""

import io
import itertools
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn import catalogue
from seqrnn.config.read import Config
from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import files

NOTES = 88  # The keys of a piano.
LOWEST = 21  # MIDI number of the first one.

# The splits of a corpus: pieces, each uint8 [frames, NOTES] of 0 and 1.
Music = dict[str, list[np.ndarray]]

# Bytes of a file, also unpacked; Nottingham has 372 kB packed. Numbers of JSON
# take some fifty times their bytes in memory.
_LIMITS = {".mat": 2**29, ".json": 2**25}
_PACKED = 15  # The type of an element of a MATLAB file that is compressed.
_CHUNK = 2**20  # Bytes unpacked at once.
_PIECES = {"train": 240, "validation": 30, "test": 30}  # Of data.source=chords.
# Degrees of the scale, from 0, and the degrees that may follow each.
_FOLLOWING = {
  0: (1, 3, 4, 5),
  1: (4,),
  3: (0, 1, 4),
  4: (0, 0, 5),
  5: (1, 3),
}
_SCALE = (0, 2, 4, 5, 7, 9, 11)  # Half tones above the key.
_HOMES = (48, 57, 62, 67)  # Typical notes of bass, tenor, alto and soprano.


def read(data: Config) -> Music:
  """The music of `data.source`, which has its own splits.

  Raises:
    UserError: `data.source` has no music, or a file is missing or holds none.
  """
  for split in SPLITS:
    field = f"{split}_path"
    if data[field] is not None:
      raise UserError(
        f"data.{field}={data[field]!r}: music is one file with all splits in"
        " it, data.path"
      )
  sets = catalogue.sets()
  match data.source, data.path:
    case "chords", None:
      numbers = itertools.count()
      return {
        split: [_chords(number) for number in itertools.islice(numbers, count)]
        for split, count in _PIECES.items()
      }
    case "files", str(path):
      return _read(Path(path))
    case str(name), None if name in sets:
      if not sets[name].is_music:
        raise UserError(f"data.source={name!r}: has symbols, no music")
      return _read(catalogue.fetch(name, "all")[0])
    case source, path:
      named = [name for name, known in sets.items() if known.is_music]
      raise UserError(
        f"data.source={source!r}, data.path={path!r}: music is chords or"
        f" {', '.join(named)}, which has no path, or files with the path of a"
        " .mat or .json file"
      )


def sequences(pieces: list[np.ndarray]) -> tuple[Sequences, np.ndarray]:
  """Pieces as ids, and the frame of each id, uint8 [ids, NOTES].

  Every frame has an id of its own; the frame of PAD is silence.
  """
  edges = bounds(pieces)
  places = np.arange(edges[-1])
  neither = np.zeros(len(pieces), bool)
  frames = np.concatenate([np.zeros((1, NOTES), np.uint8), *pieces])
  return (
    Sequences(
      places,
      np.arange(1, len(frames), dtype=np.int32),
      0 * edges[:-1],
      neither,
      neither,
      edges,
      np.arange(len(pieces)),
    ),
    frames,
  )


def bounds(pieces: list[np.ndarray]) -> np.ndarray:
  """The first frame of each piece in all frames, and the end of the last."""
  return np.cumsum([0, *map(len, pieces)])


def facts(pieces: list[np.ndarray]) -> dict[str, int]:
  """The size of the music and a checksum, as `Experiment.facts`."""
  found, frames = sequences(pieces)
  return {
    "documents": len(pieces),
    "symbols": len(frames) - 1,
    "crc32": zlib.crc32(found.bounds.data, zlib.crc32(frames.data)),
  }


def _read(path: Path) -> Music:
  """The music in a file.

  .mat: traindata, validdata and testdata, cells of arrays [frames, 88] of 0
  and 1 (Boulanger-Lewandowski et al. 2012, as Bai et al. 2018 have them).
  .json: train, valid and test, lists of pieces; a piece is a list of frames, a
  frame is a list of MIDI numbers.

  Raises:
    UserError: the file is missing, or holds something else.
  """
  kinds: dict[str, tuple[Callable, Callable, str]] = {
    ".mat": (_load_mat, _from_cell, "data"),
    ".json": (json.loads, _from_numbers, ""),
  }
  if path.suffix not in kinds:
    raise UserError(f"data.path={str(path)!r}: must end in .mat or .json")
  load, convert, ending = kinds[path.suffix]
  try:
    content = files.read(path, _LIMITS[path.suffix])
  except OSError as error:
    raise MachineError(
      f"data.path={str(path)!r}: cannot be read: {error.strerror}"
    ) from None
  try:
    splits = load(content)
  except (UserError, MemoryError):
    raise
  except Exception as error:  # SciPy raises any type for a damaged file.
    raise UserError(f"{path}: not {path.suffix[1:]} ({error})") from None
  music = {}
  for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True):
    name += ending
    pieces = splits.get(name) if isinstance(splits, dict) else None
    if not isinstance(pieces, list):
      raise UserError(f"{path}: must have {name}, a list of pieces")
    try:
      music[split] = [convert(n, piece) for n, piece in enumerate(pieces)]
    except ValueError as error:
      raise UserError(f"{path}: {name}: {error}") from None
    if not any(piece[1:].any() for piece in music[split]):
      raise UserError(f"{path}: {name}: needs a note after a first frame")
  return music


def _load_mat(content: bytes) -> dict[str, Any]:
  """The cells of a MATLAB file as lists."""
  from scipy.io import loadmat

  if _unpacked(content) > _LIMITS[".mat"]:
    raise ValueError(f"holds more than {_LIMITS['.mat']:,} bytes unpacked")
  return {
    name: list(value.ravel())
    for name, value in loadmat(io.BytesIO(content)).items()
    if isinstance(value, np.ndarray) and value.dtype == object
  }


def _unpacked(content: bytes) -> int:
  """The size of a MATLAB file, unpacked a chunk at a time."""
  order = "<" if content[126:128] == b"IM" else ">"
  total, place = 0, 128  # The header.
  while place + 8 <= len(content) and total <= _LIMITS[".mat"]:
    kind, size = struct.unpack_from(f"{order}II", content, place)
    place += 8
    total += size
    if kind == _PACKED:
      unpacker, rest = zlib.decompressobj(), content[place : place + size]
      while rest and total <= _LIMITS[".mat"]:
        total += len(unpacker.decompress(rest, _CHUNK))
        rest = unpacker.unconsumed_tail
    place += size
  return total


def _from_cell(n: int, piece: Any) -> np.ndarray:
  if not (isinstance(piece, np.ndarray) and piece.shape[1:] == (NOTES,)):
    shape = getattr(piece, "shape", ())
    raise ValueError(f"piece {n} has shape {shape}, must be [frames, {NOTES}]")
  if piece.dtype.kind not in "biuf" or not np.isin(piece, (0, 1)).all():
    raise ValueError(f"piece {n} must hold 0 and 1 alone")
  return piece.astype(np.uint8, order="C")


def _from_numbers(n: int, piece: Any) -> np.ndarray:
  if not isinstance(piece, list):
    raise ValueError(f"piece {n} must be a list of frames")
  frames = np.zeros((len(piece), NOTES), np.uint8)
  for t, numbers in enumerate(piece):
    if not isinstance(numbers, list):
      raise ValueError(f"piece {n}, frame {t} must be a list of MIDI numbers")
    for number in numbers:
      if number not in range(LOWEST, LOWEST + NOTES):
        raise ValueError(
          f"piece {n}, frame {t}: {number!r} must be a MIDI number from"
          f" {LOWEST} to {LOWEST + NOTES - 1}"
        )
      frames[t, int(number) - LOWEST] = 1
  return frames


def _chords(number: int) -> np.ndarray:
  """A generated piece: four voices in a major key, from tonic to tonic.

  Chords follow each other by a table and last 1, 2 or 4 frames. The bass has
  the root, and the voices above it move as little as possible. A number gives
  the same piece on every machine.
  """
  rng = random.Random(number)

  def pick(options):  # Only random() is the same in all versions of Python.
    return options[int(rng.random() * len(options))]

  key, degree, voices, frames = pick(range(12)), 0, _HOMES, []
  left = 12 + pick(range(12))  # Chords, before the piece may end.
  while True:
    triad = [(key + _SCALE[(degree + n) % 7]) % 12 for n in (0, 2, 4)]
    voices = min(
      (
        tuple(map(_near, (triad[0], *order), voices, _HOMES))
        for order in itertools.permutations(triad)
      ),
      key=lambda new: sum(abs(a - b) for a, b in zip(new, voices, strict=True)),
    )
    frame = np.zeros(NOTES, np.uint8)
    frame[np.array(voices) - LOWEST] = 1
    frames += [frame] * pick((1, 2, 2, 4))
    if left <= 0 and degree == 0:
      return np.array(frames)
    degree = pick(_FOLLOWING[degree])
    left -= 1


def _near(pitch_class: int, before: int, home: int) -> int:
  """The note of a pitch class nearest to the middle of `before` and `home`."""
  middle = (before + home) // 2
  return middle + (pitch_class - middle + 6) % 12 - 6
