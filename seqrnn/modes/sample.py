"""sample: draws texts or music from a model, symbol by symbol.

All modules are in sampling/:
1. texts.py reads primes.
2. patterns.py makes the table of a pattern (automaton.py), schema.py that of a
   JSON Schema.
3. sampler.py draws, and decoding.py chooses each symbol.
4. music.py writes MIDI files and pictures.
"""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seqrnn.config.read import Config
from seqrnn.errors import escaped
from seqrnn.experiment import Build, Experiment, Params
from seqrnn.modes import load_model
from seqrnn.runtime import files, pictures
from seqrnn.sampling import music, texts

_TEMPO = 120  # Frames a minute of music.


def write_music(
  experiment: Experiment, params: Params, config: Config, workdir: Path
) -> list[np.ndarray]:
  """Samples music; writes each piece as a MIDI file and as a picture."""
  settings = config.sample
  pieces = music.sample_music(experiment, params, config)
  names = itertools.product(
    settings.temperature, range(1, settings.streams + 1)
  )
  with files.locked_results(workdir, "sample") as folder:
    for notes_TV, (temperature, stream) in zip(pieces, names, strict=True):
      path = folder / f"music-{temperature:g}-{stream}.mid"
      music.write_midi(path, notes_TV, _TEMPO)
      primed = len(notes_TV) - settings.length
      roll = music.piano_roll(notes_TV, primed)
      pictures.save(roll, path.with_suffix(".png"))
      share = music.clashes(notes_TV[primed:])
      print(
        f"{workdir / path.name}, {path.with_suffix('.png').name}: half tones"
        f" sound together in {share:.1%} of the frames"
      )
  return pieces


def write_texts(
  writing: texts.Writing, workdir: Path, show: Callable[[str], None]
) -> list[str]:
  """Shows the texts of a config; returns them.

  With `sample.prompts` or `sample.format=jsonl` it writes samples.jsonl, too.
  """
  settings, drawn, lines = writing.config.sample, [], []
  plain = settings.format == "text"
  kind = "stream" if settings.prompts is None else "prompt"
  for temperature in settings.temperature:
    if plain and len(settings.temperature) > 1:
      show(f"----- temperature {temperature:g}\n")
    for number, one in enumerate(texts.draw(writing, temperature), 1):
      lines.append(json.dumps(one._asdict()) + "\n")
      head = f"----- {kind} {number}\n" if len(writing.rows) > 1 else ""
      show(f"{head}{one.text}\n" if plain else lines[-1])
      drawn.append(one.text)
  if settings.prompts is not None or not plain:
    files.write(workdir / "samples.jsonl", "".join(lines))
  return drawn


def run(build: Build, config: Config, workdir: Path) -> texts.Drawn:
  """Samples from a checkpoint; prints texts, writes music.

  Raises:
    UserError: the task has no decoder.
  """
  experiment, params, _ = load_model(build, config, workdir, "sample")
  if not experiment.writes_text:
    return write_music(experiment, params, config, workdir)

  def show(text: str):
    # On a terminal, control characters are escaped.
    text = escaped(text, keep="\n\t") if sys.stdout.isatty() else text
    print(text, end="", flush=True)

  return write_texts(texts.begin(experiment, params, config), workdir, show)
