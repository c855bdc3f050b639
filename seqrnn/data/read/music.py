"""Music: pieces as frames of 88 notes, from a file or made by rules."""

import io
import itertools
import json
import random
import zlib
from pathlib import Path

import numpy as np

from seqrnn import catalogue
from seqrnn.config.read import Config
from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.read import reading
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.errors import UserError

NOTES = 88  # The keys of a piano.
LOWEST = 21  # MIDI number of the first one.

# The splits of a corpus: pieces, each uint8 [frames, NOTES] of 0 and 1.
Music = dict[str, list[np.ndarray]]

_PIECES = {"train": 240, "validation": 30, "test": 30}  # Of data.source=chords.
# Degrees of the scale, from 0, and the degrees that may follow each.
_FOLLOWING = {0: (1, 3, 4, 5), 1: (4,), 3: (0, 1, 4), 4: (0, 0, 5), 5: (1, 3)}
_SCALE = (0, 2, 4, 5, 7, 9, 11)  # Half tones above the key.
_HOMES = (48, 57, 62, 67)  # Typical notes of bass, tenor, alto and soprano.


def read_music(data: Config) -> Music:
  """The music of `data.source`, which has its own splits.

  Raises:
    UserError: `data.source` has no music, or a file is missing or holds none.
  """
  known = catalogue.sets().get(data.source)
  if known and known.is_music:
    return _read_file(catalogue.fetch(data.source, "all")[0])
  if data.source == "files" and data.path is not None:
    return _read_file(Path(data.path))
  if data.source != "chords":
    raise UserError(
      f"data.source={data.source!r}, data.path={data.path!r}: music is chords,"
      " jsb, nottingham, or files with all splits in data.path, a .mat or .json"
      " file"
    )
  numbers = itertools.count()
  return {
    split: [_chords(number) for number in itertools.islice(numbers, count)]
    for split, count in _PIECES.items()
  }


def sequences(pieces: list[np.ndarray]) -> tuple[Sequences, np.ndarray]:
  """Pieces as ids, and the frame of each id, uint8 [ids, NOTES].

  Every frame has an id of its own; the frame of PAD is silence.
  """
  # The first frame of each piece in all frames, and the end of the last.
  edges = np.cumsum([0, *map(len, pieces)])
  frames = np.concatenate([np.zeros((1, NOTES), np.uint8), *pieces])
  ids, table = np.arange(edges[-1]), np.arange(1, len(frames), dtype=np.int32)
  shifts, distinct = 0 * edges[:-1], np.arange(len(pieces))
  cut = np.zeros(len(pieces), bool)
  return Sequences(ids, table, shifts, cut, cut, edges, distinct), frames


def facts(pieces: list[np.ndarray]) -> dict[str, int]:
  """The size of the music and a checksum, as `Experiment.facts`."""
  encoded, frames = sequences(pieces)
  return {
    "documents": len(pieces),
    "symbols": len(frames) - 1,
    "crc32": zlib.crc32(encoded.bounds.data, zlib.crc32(frames.data)),
  }


def _read_file(path: Path) -> Music:
  """The music in a file.

  .mat: traindata, validdata and testdata, cells of arrays [frames, 88] of 0
  and 1 (Boulanger-Lewandowski et al. 2012, as Bai et al. 2018 have them).
  .json: train, valid and test, lists of pieces; a piece is a list of frames, a
  frame is a list of MIDI numbers.

  Raises:
    UserError: the file is missing, or holds something else.
  """
  if path.suffix not in (".mat", ".json"):
    raise UserError(f"data.path={str(path)!r}: must end in .mat or .json")
  is_json = path.suffix == ".json"
  content = b"".join(reading.chunks(reading.Source(path.name, path)))
  from scipy.io import loadmat

  music, convert = {}, _from_numbers if is_json else _from_cell
  try:
    splits = json.loads(content) if is_json else loadmat(io.BytesIO(content))
    for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True):
      pieces = splits[name] if is_json else splits[f"{name}data"].ravel()
      music[split] = [convert(piece) for piece in pieces]
      if not any(piece[1:].any() for piece in music[split]):
        raise ValueError(f"{name} needs a note after a first frame")
  except Exception as error:  # SciPy raises any type for a damaged file.
    raise UserError(
      f"{path}: must be pieces of frames: in .mat [frames, {NOTES}] of 0 and 1,"
      f" in .json lists of MIDI numbers from {LOWEST} ({error})"
    ) from None
  return music


def _from_cell(piece: np.ndarray) -> np.ndarray:
  if piece.shape[1:] != (NOTES,) or not np.isin(piece, (0, 1)).all():
    raise ValueError(f"a piece of shape {piece.shape}")
  return piece.astype(np.uint8, order="C")


def _from_numbers(piece: list[list[int]]) -> np.ndarray:
  frames = np.zeros((len(piece), NOTES), np.uint8)
  for t, numbers in enumerate(piece):
    if not set(numbers) <= {*range(LOWEST, LOWEST + NOTES)}:
      raise ValueError(f"a frame of {numbers}")
    frames[t, [int(number) - LOWEST for number in numbers]] = 1
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
