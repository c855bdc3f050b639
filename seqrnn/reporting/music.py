"""Section of a report on sampled music."""

import copy

from seqrnn.data import midi, music
from seqrnn.inference.sampler import sample_music
from seqrnn.reporting import charts
from seqrnn.reporting.page import Element, element, section
from seqrnn.reporting.subject import Subject

_FRAMES = 64  # Of each piece.


def pieces(subject: Subject) -> list[Element]:
  """Piano rolls of sampled pieces, and of a piece of the data."""
  if subject.experiment.decoder is None:
    return []
  config = copy.deepcopy(subject.config)
  config.sample.length, config.sample.streams = _FRAMES, 1
  if "test" not in subject.facts:  # A prime is read from the test split.
    config.sample.prime = ""
  if len(config.sample.temperature) < 2:
    config.sample.temperature = (0.7, 1.0)
  temperatures = config.sample.temperature
  sampled = sample_music(subject.experiment, subject.params, config)
  rolls = {
    f"Temperature {temperature:g}": notes_TV
    for temperature, notes_TV in zip(temperatures, sampled, strict=True)
  }
  prime, last = config.sample.prime, ""
  begun = f"sample.prime={prime!r}" if prime else "silence"
  if subject.facts:
    split = subject.splits[-1]
    piece = music.read(config.data)[split][0][:_FRAMES]
    rolls[f"A piece of the {split} split"] = piece
    last = f" The last one is of the {split} split, {subject.learned(split)}."
  made = section(
    "Sampled music",
    element(
      "p",
      "Each bar is a note; time runs from left to right. Pieces with a"
      " temperature were sampled frame by frame, and continue"
      f" {begun}.{last}",
    ),
    element(
      "div",
      [
        charts.roll(name, midi.held(notes_TV), len(notes_TV))
        for name, notes_TV in rolls.items()
      ],
      class_="grid",
    ),
  )
  return [made]
