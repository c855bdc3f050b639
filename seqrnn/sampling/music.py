"""Music that a model draws, as MIDI files and as pictures."""

import re
from pathlib import Path

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.read.music import LOWEST, NOTES, read_music
from seqrnn.errors import UserError, needs_package
from seqrnn.experiment import Experiment, Params
from seqrnn.runtime import files, pictures
from seqrnn.sampling import decoding
from seqrnn.sampling.sampler import generator

_TICKS = 480  # The length of a frame in a MIDI file.


def prime_frames(data: Config, prime: str) -> np.ndarray:
  """The notes [frames, V] that music continues; without prime, a silent frame.

  Raises:
    UserError: there is no such piece in the test split.
  """
  if not prime:
    return np.zeros((1, NOTES), np.uint8)
  pieces = read_music(data)["test"]
  match = re.fullmatch(r"([0-9]{1,9})(?::([1-9][0-9]{0,8}))?", prime)
  if not match or int(match[1]) >= len(pieces):
    raise UserError(
      f"config.sample.prime={prime!r}: must be a piece of the test split, 0 to"
      f" {len(pieces) - 1}, or the first frames of one, as 3:16"
    )
  return pieces[int(match[1])][: int(match[2]) if match[2] else None]


def sample_music(
  experiment: Experiment, params: Params, config: Config
) -> list[np.ndarray]:
  """The notes [frames, V] of each piece, in the order of `sample`.

  Raises:
    UserError: no such prime.
  """
  settings = config.sample
  assert experiment.decoder is not None, "checked by the caller"
  prime_PV = prime_frames(config.data, settings.prime)
  prime_BPV = np.tile(prime_PV, (settings.streams, 1, 1))
  how, more = decoding.NOTES, ()
  if config.model.nade is not None:
    how, more = decoding.CHORD, (params["nade"],)
  generate = generator(experiment.decoder, length=settings.length, how=how)
  shown_BPV = prime_BPV if settings.prime else prime_BPV[:, :0]
  pieces = []
  for temperature in settings.temperature:
    chunks = generate(params, prime_BPV, settings.seed, temperature, *more)
    pieces += list(np.concatenate([shown_BPV, *chunks], axis=1))
  return pieces


def long_notes(notes_TV: np.ndarray) -> list[list[int]]:
  """The notes of frames; a note in adjacent frames is one long note.

  Returns:
    the first frame, the frame after the last, and the number of MIDI of each.
  """
  changes_VT = np.diff(notes_TV.T.astype(np.int8), prepend=0, append=0)
  key, start = np.nonzero(changes_VT == 1)
  _, stop = np.nonzero(changes_VT == -1)
  return np.stack([start, stop, key + LOWEST], axis=1).tolist()


def write_midi(path: Path, notes_TV: np.ndarray, tempo: int):
  """Writes a MIDI file, `tempo` frames a minute.

  Raises:
    UserError: mido is missing, or the file cannot be written.
  """
  with needs_package(str(path), "mido", "midi"):
    import mido
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
    time = (frame - now) * _TICKS
    track.append(mido.Message(kind, note=number, velocity=64, time=time))
    now = frame
  silence = (len(notes_TV) - now) * _TICKS
  track.append(mido.MetaMessage("end_of_track", time=silence))
  midi = mido.MidiFile(ticks_per_beat=_TICKS)
  midi.tracks.append(track)
  with files.atomic_write(path, "wb") as file:
    midi.save(file=file)


def clashes(notes_TV: np.ndarray) -> float:
  """The share of frames with two sounding notes a half tone apart."""
  return float((notes_TV[:, 1:] & notes_TV[:, :-1]).any(axis=1).mean())


def piano_roll(notes_TV: np.ndarray, primed: int = 0) -> "pictures.Figure":
  """Draws frames of notes, the first `primed`, of the prompt, in gray."""
  T = len(notes_TV)
  figure = pictures.create(min(4 + T / 16, 40), 4)
  axes, notes = figure.add_subplot(), long_notes(notes_TV)
  starts, stops, numbers = zip(*notes, strict=True) if notes else ((), (), ())
  axes.hlines(numbers, starts, stops, linewidth=3)
  axes.axvspan(0, primed, color="black", alpha=0.15, linewidth=0)
  octaves = range(24, LOWEST + NOTES, 12)
  axes.set_yticks(octaves, [f"C{number // 12 - 1}" for number in octaves])
  lowest, highest = min(numbers, default=48), max(numbers, default=72)
  axes.set(xlim=(0, T), ylim=(lowest - 2, highest + 2), xlabel="frame")
  pictures.grid(axes)
  return figure
