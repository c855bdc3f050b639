"""Sampled music: MIDI files, and notes a half tone apart."""

from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.data.read.music import read_music
from seqrnn.sampling import music
from tests.conftest import tiny
from tests.test_docs import blocks


def random_notes(seed, T, share=0.3):
  rng = np.random.default_rng(seed)
  return (rng.random((T, 88)) < share).astype(np.uint8)


def read_midi(path):
  """The notes of a MIDI file [frames, 88], by its messages alone."""
  file = mido.MidiFile(path)
  [track] = file.tracks
  sounding, rows = set(), []
  for message in track:
    assert message.time % file.ticks_per_beat == 0
    rows += [sorted(sounding)] * (message.time // file.ticks_per_beat)
    if message.type == "note_on":
      assert message.note not in sounding and message.velocity > 0
      sounding.add(message.note)
    elif message.type == "note_off":
      sounding.remove(message.note)
  assert not sounding
  notes = np.zeros((len(rows), 88), np.uint8)
  for frame, row in enumerate(rows):
    notes[frame, np.array(row, int) - 21] = 1
  return notes, file.length


@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([0, 0.3, 1]))
def test_a_file_read_back_has_the_same_notes(tmp_path_factory, seed, T, share):
  notes = random_notes(seed, T, share)
  path = tmp_path_factory.mktemp("midi") / "music.mid"
  music.write_midi(path, notes, 90)
  notes_read, seconds = read_midi(path)
  np.testing.assert_array_equal(notes_read, notes)
  assert seconds == pytest.approx(T * 60 / 90, rel=1e-4)


def test_the_guide_makes_a_file_of_midi_files(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pieces = {}
  for seed, split in enumerate(("train", "valid", "test")):
    Path(split).mkdir()
    pieces[split] = random_notes(seed, 6, 0.3)
    music.write_midi(Path(split) / "a.mid", pieces[split], 90)
  exec(blocks("howto/data.md")[0], {})
  config = tiny(tmp_path, {"data.path": "music.json"})
  for notes, [piece] in zip(
    pieces.values(), read_music(config.data).values(), strict=True
  ):
    # A file has a beat a frame, and the guide reads two frames a beat.
    np.testing.assert_array_equal(piece, notes.repeat(2, axis=0))


def test_a_clash_is_two_notes_a_half_tone_apart():
  notes = np.zeros((4, 88), np.uint8)
  notes[1, [3, 5, 87]] = notes[2, [7, 8]] = notes[3, [86, 87]] = 1
  assert music.clashes(notes) == 0.5
