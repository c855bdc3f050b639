"""sample: draws texts or music from a model, symbol by symbol."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seqrnn.data import midi, vocabulary
from seqrnn.errors import escaped
from seqrnn.experiment import Experiment, Params, require, shapes
from seqrnn.inference.sampler import sample_music
from seqrnn.inference.texts import sample
from seqrnn.runtime import fileset
from seqrnn.runtime.checkpoint import restore_params
from seqrnn.settings.config import Config


def write_music(
  experiment: Experiment, params: Params, config: Config, workdir: Path
) -> list[np.ndarray]:
  """Samples music; writes each piece as a MIDI file and as a picture."""
  settings = config.sample
  made = sample_music(experiment, params, config)
  names = itertools.product(
    settings.temperature, range(1, settings.streams + 1)
  )
  with fileset.results(workdir, "sample", "written to") as folder:
    for notes_TV, (temperature, stream) in zip(made, names, strict=True):
      path = folder / f"music-{temperature:g}-{stream}.mid"
      midi.write(path, notes_TV, settings.tempo)
      given = len(notes_TV) - settings.length
      midi.draw(path.with_suffix(".png"), notes_TV, given)
      print(f"{workdir / path.name}, {path.with_suffix('.png').name}")
  return made


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[str] | list[np.ndarray]:
  """Samples from a checkpoint; prints texts as they are made, writes music.

  Raises:
    UserError: the task has no decoder.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  require(experiment, "sample", config.task)
  params, _ = restore_params(
    workdir, config.checkpoint.step, shapes(experiment)
  )
  if not experiment.writes_text:
    return write_music(experiment, params, config, workdir)

  def show(text: str):
    # On a terminal, control characters are escaped.
    text = escaped(text, keep="\n\t") if sys.stdout.isatty() else text
    print(text, end="", flush=True)

  return sample(experiment, params, config, show)
