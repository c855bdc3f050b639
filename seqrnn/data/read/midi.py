"""Sampled music: its notes, MIDI files and pictures."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.data.read.music import LOWEST, NOTES
from seqrnn.errors import UserError
from seqrnn.runtime import figures, files

_TICKS = 480  # Of a frame in a MIDI file.


class Note(NamedTuple):
  """A note that is held.

  Attributes:
    start: its first frame.
    stop: the frame after its last.
    number: of MIDI, 60 for middle C.
  """

  start: int
  stop: int
  number: int


def long_notes(notes_TV: np.ndarray) -> list[Note]:
  """The notes of frames; a note in adjacent frames is one long note."""
  changes_VT = np.diff(notes_TV.T.astype(np.int8), prepend=0, append=0)
  key, start = np.nonzero(changes_VT == 1)
  _, stop = np.nonzero(changes_VT == -1)
  return [Note(*note) for note in np.stack([start, stop, key + LOWEST], 1)]


def write_midi(path: Path, notes_TV: np.ndarray, tempo: int):
  """Writes a MIDI file, `tempo` frames a minute.

  Raises:
    UserError: mido is missing, or the file cannot be written.
  """
  try:
    import mido
  except ImportError:
    raise UserError(
      f"{path}: a MIDI file needs the package mido: pip install mido"
    ) from None
  events = [
    (frame, kind, number)
    for start, stop, number in long_notes(notes_TV)
    # Ends come first: a note may be struck again in the frame where it ends.
    for frame, kind in ((stop, "note_off"), (start, "note_on"))
  ]
  track = mido.MidiTrack()
  track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
  now = 0
  for frame, kind, number in sorted(events):
    time = int(frame - now) * _TICKS
    track.append(mido.Message(kind, note=int(number), velocity=64, time=time))
    now = frame
  silence = int(len(notes_TV) - now) * _TICKS
  track.append(mido.MetaMessage("end_of_track", time=silence))
  midi = mido.MidiFile(ticks_per_beat=_TICKS)
  midi.tracks.append(track)
  with files.atomic_write(path, "wb") as file:
    midi.save(file=file)


def draw_roll(path: Path, notes_TV: np.ndarray, primed: int):
  """Draws a piano roll, with the first `primed` frames, the prompt, in gray.

  Raises:
    UserError: the file cannot be written.
  """
  T = len(notes_TV)
  figure = figures.create(min(4 + T / 16, 40), 4)
  axes = figure.add_subplot()
  notes = long_notes(notes_TV)
  starts, stops, numbers = zip(*notes, strict=True) if notes else ((), (), ())
  axes.hlines(numbers, starts, stops, linewidth=3)
  axes.axvspan(0, primed, color="black", alpha=0.15, linewidth=0)
  octaves = range(24, LOWEST + NOTES, 12)
  axes.set_yticks(octaves, [f"C{number // 12 - 1}" for number in octaves])
  lowest, highest = min(numbers, default=48), max(numbers, default=72)
  axes.set(xlim=(0, T), ylim=(lowest - 2, highest + 2), xlabel="frame")
  figures.grid(axes)
  figures.save(figure, path)
