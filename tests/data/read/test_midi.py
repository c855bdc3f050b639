"""MIDI files and piano rolls."""

import sys

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from seqrnn.data.read import midi
from seqrnn.errors import UserError


def random_notes(seed, T, share=0.3):
  rng = np.random.default_rng(seed)
  return (rng.random((T, 88)) < share).astype(np.uint8)


def read(path):
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


@settings(deadline=None, database=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([0, 0.3, 1]))
def test_a_file_read_back_has_the_same_notes(tmp_path_factory, seed, T, share):
  notes = random_notes(seed, T, share)
  path = tmp_path_factory.mktemp("midi") / "music.mid"
  midi.write_midi(path, notes, 90)
  notes_read, seconds = read(path)
  np.testing.assert_array_equal(notes_read, notes)
  assert seconds == pytest.approx(T * 60 / 90, rel=1e-4)


def test_a_note_that_goes_on_is_one():
  notes = random_notes(0, 40, 0.6)
  expected = []
  for key in range(88):
    start = None
    for frame in range(41):
      sounds = frame < 40 and notes[frame, key]
      if sounds and start is None:
        start = frame
      elif not sounds and start is not None:
        expected.append((start, frame, key + 21))
        start = None
  assert sorted(midi.long_notes(notes)) == sorted(expected)


def test_a_roll_shows_every_note(tmp_path, monkeypatch):
  notes, lines, hlines = random_notes(1, 12, 0.1), [], Axes.hlines

  def note_down(axes, numbers, starts, stops, **looks):
    lines.extend(zip(starts, stops, numbers, strict=True))
    return hlines(axes, numbers, starts, stops, **looks)

  monkeypatch.setattr(Axes, "hlines", note_down)
  midi.draw_roll(tmp_path / "roll.png", notes, 4)
  assert lines == midi.long_notes(notes)
  midi.draw_roll(tmp_path / "silence.png", 0 * notes, 0)
  for name in ("roll", "silence"):
    content = (tmp_path / f"{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG")


def test_without_mido_the_package_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "mido", None)
  with pytest.raises(UserError, match=r"mido: pip install mido"):
    midi.write_midi(tmp_path / "music.mid", random_notes(0, 3), 120)
  assert not list(tmp_path.iterdir())
