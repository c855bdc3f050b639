"""Music: files and their faults, and made-up pieces."""

import io
import json
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from seqrnn.data.read import music
from seqrnn.errors import UserError
from tests.conftest import tiny

NAMES = ("train", "valid", "test")


def draw(rng, sizes=(7, 1, 12)):
  """Random pieces; the loudest note and silent frames among them."""
  return [(rng.random((n, 88)) < 0.05).astype(np.uint8) for n in sizes]


def numbers(pieces):
  return [[(np.flatnonzero(f) + 21).tolist() for f in p] for p in pieces]


def cells(pieces):
  column = np.empty((1, len(pieces)), object)
  column[0, :] = pieces
  return column


def read(tmp_path, name):
  config = tiny(tmp_path, {"data.path": str(tmp_path / name)})
  return music.read_music(config.data)


@pytest.fixture
def pieces():
  rng = np.random.default_rng(0)
  return {name: draw(rng) for name in NAMES}


def test_both_kinds_of_files_give_the_pieces(tmp_path, pieces):
  (tmp_path / "music.json").write_text(
    json.dumps({name: numbers(found) for name, found in pieces.items()})
  )
  content = {f"{name}data": cells(found) for name, found in pieces.items()}
  savemat(tmp_path / "music.mat", content, do_compression=True)
  for kind in ("json", "mat"):
    found = read(tmp_path, f"music.{kind}")
    assert list(found) == ["train", "validation", "test"]
    for mine, theirs in zip(found.values(), pieces.values(), strict=True):
      assert len(mine) == len(theirs)
      for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)


GOOD = [[[60, 64], [], [21, 108]]]


def test_files_that_hold_no_music(tmp_path, pieces):
  def json_with(**changes):
    return json.dumps({**dict.fromkeys(NAMES, GOOD), **changes}).encode()

  def mat_with(piece):
    content = {f"{name}data": cells(found) for name, found in pieces.items()}
    content["validdata"] = cells([pieces["valid"][0], piece])
    file = io.BytesIO()
    savemat(file, content)
    return file.getvalue()

  for ending, content, rule in (
    ("json", b"{", "must be .*MIDI numbers from 21 .Expecting"),
    ("json", json_with(valid=[[[60], [20]]]), "must be .*a frame of .20"),
    ("json", json_with(test=[]), ".*test needs a note after a first frame"),
    ("mat", b"traindata\n" * 100, r"must be .* in .mat \[frames, 88"),
    ("mat", mat_with(np.zeros((4, 87))), r"must be .*a piece of shape .4, 87"),
    ("mid", b"", "must end in .mat or .json"),
  ):
    path = tmp_path / f"music.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"music.{ending}'?: {rule}"):
      read(tmp_path, path.name)
  with pytest.raises(UserError, match="data.source='stdlib', data.path="):
    music.read_music(tiny(tmp_path, {"data.source": "stdlib"}).data)


def test_chords_are_four_voices_and_always_the_same(tmp_path):
  data = tiny(tmp_path, {"data.source": "chords"}).data
  found = music.read_music(data)
  assert {k: len(v) for k, v in found.items()} == music._PIECES
  every = [piece for pieces in found.values() for piece in pieces]
  for piece in every:
    assert len(piece) > 12 and set(piece.sum(axis=1)) <= {3, 4}
    # They begin and end with the tonic: the same bass, in any octave.
    first, last = (np.flatnonzero(frame)[0] for frame in (piece[0], piece[-1]))
    assert (first - last) % 12 == 0
  assert len({piece.tobytes() for piece in every}) == len(every)
  # Whatever the machine, the Python or the NumPy.
  assert zlib.crc32(np.concatenate(every)) == 2911649390
