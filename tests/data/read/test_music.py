"""Music as data: files, what may be wrong with them, and made-up pieces."""

import json
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from seqrnn.data.read import music
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from tests.conftest import tiny

NAMES = ("train", "valid", "test")


def draw(rng, sizes=(7, 1, 12)):
  """Random pieces; the loudest note and silent frames among them."""
  return [(rng.random((n, 88)) < 0.05).astype(np.uint8) for n in sizes]


def numbers(pieces):
  return [[(np.flatnonzero(f) + 21).tolist() for f in p] for p in pieces]


def cells(pieces):
  made = np.empty((1, len(pieces)), object)
  made[0, :] = pieces
  return made


def read(tmp_path, name):
  return music.read(tiny(tmp_path, {"data.path": str(tmp_path / name)}).data)


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


def json_with(**changes):
  return json.dumps({**dict.fromkeys(NAMES, GOOD), **changes}).encode()


@pytest.mark.parametrize(
  ("content", "rule"),
  [
    (b"{", r"music.json: not json \("),
    (b"[" * 100_000, r"music.json: not json \("),
    (b"[1]", "music.json: must have train, a list of pieces"),
    (json_with(valid=3), "music.json: must have valid, a list of pieces"),
    (json_with(test=[]), "json: test: needs a note after a first frame"),
    (json_with(test=[[[60]], [[60], []]]), "test: needs a note after a first"),
    (json_with(train=[*GOOD, 7]), "train: piece 1 must be a list of frames"),
    (json_with(train=[[[], 60]]), "piece 0, frame 1 must be a list of MIDI"),
    (json_with(test=[[[60], [20]]]), "test: piece 0, frame 1: 20 must be a MI"),
    (json_with(test=[[[109]]]), "109 must be a MIDI number from 21 to 108"),
    (json_with(test=[[[60.5]]]), "frame 0: 60.5 must be a MIDI number"),
    (json_with(test=[[[float("nan")]]]), "frame 0: nan must be a MIDI number"),
    (json_with(test=[[["60"]]]), "frame 0: '60' must be a MIDI number"),
    (json_with(test=[[[[60]]]]), r"frame 0: \[60\] must be a MIDI number"),
  ],
)
def test_json_that_holds_no_music(tmp_path, content, rule):
  (tmp_path / "music.json").write_bytes(content)
  with pytest.raises(UserError, match=rule):
    read(tmp_path, "music.json")


@pytest.mark.parametrize(
  ("piece", "rule"),
  [
    (np.zeros((4, 87)), r"piece 1 has shape \(4, 87\), must be \[frames, 88\]"),
    (np.full((4, 88), 2), "piece 1 must hold 0 and 1 alone"),
    (np.full((4, 88), np.nan), "piece 1 must hold 0 and 1 alone"),
    ("text", r"piece 1 has shape \(1,\), must be"),
  ],
)
def test_a_cell_that_is_no_piece(tmp_path, pieces, piece, rule):
  content = {f"{name}data": cells(found) for name, found in pieces.items()}
  content["validdata"] = cells([pieces["valid"][0], piece])
  savemat(tmp_path / "music.mat", content)
  with pytest.raises(UserError, match=f"music.mat: validdata: {rule}"):
    read(tmp_path, "music.mat")


@pytest.mark.parametrize("damage", ["cut", "text", "numbers"])
def test_a_mat_file_that_is_none(tmp_path, pieces, damage):
  path = tmp_path / "music.mat"
  content = {f"{name}data": cells(found) for name, found in pieces.items()}
  if damage == "numbers":
    content["traindata"] = np.eye(88)
  savemat(path, content)
  if damage == "cut":
    path.write_bytes(path.read_bytes()[:700])
  if damage == "text":
    path.write_text("traindata\n" * 100)
  rule = "must have traindata, a list" if damage == "numbers" else "not mat"
  with pytest.raises(UserError, match=f"music.mat: {rule}"):
    read(tmp_path, "music.mat")


@pytest.mark.parametrize(
  ("fields", "rule"),
  [
    ({"data.path": "no.mat"}, "data.path='no.mat': cannot be read: No such"),
    ({"data.path": "a.mid"}, "data.path='a.mid': must end in .mat or .json"),
    ({"data.path": None}, "data.source='files', data.path=None: music is"),
    ({"data.source": "stdlib"}, "data.source='stdlib', data.path=None: music"),
    ({"data.source": "chords", "data.path": "a.mat"}, "which has no path"),
    ({"data.test_path": "a.mat"}, "data.test_path='a.mat': music is one file"),
  ],
)
def test_other_sources_are_refused(tmp_path, monkeypatch, fields, rule):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=rule):
    music.read(tiny(tmp_path, fields).data)


def test_chords_are_four_voices_and_always_the_same(tmp_path):
  data = tiny(tmp_path, {"data.source": "chords"}).data
  found = music.read(data)
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


def test_ids_stand_for_the_frames(pieces):
  found, frames = music.sequences(pieces["train"])
  assert not frames[PAD].any()
  document = np.array([2, 0])
  place = found.bounds[document]
  ids = found.gather(document, place, found.bounds[document + 1], 9)
  np.testing.assert_array_equal(frames[ids[0]], pieces["train"][2][:9])
  np.testing.assert_array_equal(frames[ids[1, :7]], pieces["train"][0])
  assert (ids[1, 7:] == PAD).all() and not (ids[1, :7] == PAD).any()


def test_facts_tell_music_apart(pieces):
  train = pieces["train"]
  facts = music.facts(train)
  assert (facts["documents"], facts["symbols"]) == (3, 20)
  assert music.facts([piece.copy() for piece in train]) == facts
  joined = [np.concatenate(train[:2]), train[2]]
  changed = [*train[:2], 1 - train[2]]
  crc32s = {music.facts(p)["crc32"] for p in (train, joined, changed)}
  assert len(crc32s) == 3


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_of_music_is_not_unpacked_beyond_its_limit(
  tmp_path, monkeypatch, packed
):
  pieces = np.empty((1, 1), object)
  pieces[0, 0] = np.zeros((5000, music.NOTES))
  pieces[0, 0][1:, 0] = 1
  names = ("traindata", "validdata", "testdata")
  path = tmp_path / "music.mat"
  savemat(path, dict.fromkeys(names, pieces), do_compression=packed)
  config = tiny(tmp_path, {"task": "polyphony", "data.path": str(path)})
  assert len(music.read(config.data)["train"][0]) == 5000
  limit = 3 * 5000 * music.NOTES * 8
  monkeypatch.setitem(music._LIMITS, ".mat", limit)
  with pytest.raises(UserError, match=rf"{limit:,} bytes"):
    music.read(config.data)
