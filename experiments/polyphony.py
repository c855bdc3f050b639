"""The next frame of music: 88 notes, each on or off.

The notes of a frame are independent of each other, or, with `model.nade`, each
note depends on those below it. The loss is the negative log-likelihood in nats
a frame, the sum of 88 binary cross-entropies. Its mean is over the frames 2..T
of all pieces, every frame alike whatever its piece, as in the code of Bai et
al. 2018. In evaluation each frame is predicted from all that come before it in
its piece.
"""

from functools import cache, partial

import jax
import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.batches.segments import Request, cut
from seqrnn.data.batches.streams import Rows, streams
from seqrnn.data.batches.windows import Batches, Shape
from seqrnn.data.read import music
from seqrnn.data.vocabulary import PAD
from seqrnn.experiment import Batch, Decoder, Experiment, Report, Totals
from seqrnn.experiments import parts
from seqrnn.models import losses, network

VOCABULARIES = ()  # A note is its number.


def prepare(_: Config) -> dict:
  """There is no vocabulary."""
  return {}


def build(config: Config, vocabularies: dict) -> Experiment:
  """The experiment; no music is read before its batches are."""
  model = network.note_model(config.model, music.NOTES)
  corpus = cache(partial(music.read_music, config.data))
  predict = partial(parts.predict, model)
  example = np.zeros((1, 1, music.NOTES), np.float32)
  return Experiment(
    vocabularies=vocabularies,
    init=partial(network.init, model, inputs=example),
    carry=model.initial_carry,
    loss=partial(parts.loss, model, (figures, 0.0)),
    facts=cache(lambda split: music.facts(corpus()[split])),
    batches=partial(batches, config, corpus),
    predict=predict,
    score=partial(parts.score, predict, surprisal=losses.note_surprisal),
    decoder=Decoder(model.initial_carry, partial(network.next_symbol, model)),
    forbidden=lambda T: ~np.tri(T, dtype=bool),
    unit="frame",
    report=Report(
      "It reads music and predicts for each of 88 notes whether it sounds in"
      " the next frame."
    ),
  )


def batches(config: Config, corpus, split: str, epoch: int) -> Batches:
  """Windows of the training split; else each piece with its whole past.

  Args:
    config: of the run.
    corpus: -> the pieces of each split.
    split: its name.
    epoch: of training.
  """
  data = config.data
  sequences, frames = music.sequences(corpus()[split])
  if split == "train":
    # A window longer than any piece would be padding.
    longest = int(np.diff(sequences.bounds).max())
    length = min(data.window + 1, longest)
    shape = Shape(length, data.window)
    windows = cut(config, sequences, shape, Request(split, epoch))
  else:
    rows = Rows(config.train.batch_size, data.window, whole=True)
    windows = streams(sequences, rows.fitted(sequences))
  return windows.map(partial(targets, frames))


def targets(frames: np.ndarray, batch: Batch) -> Batch:
  """Inputs and targets of a batch of segments, which index the frames."""
  segment = batch["segment"]
  return {
    "inputs": frames[segment[:, :-1]],
    "targets": frames[segment[:, 1:]],
    "weights": (segment[:, 1:] != PAD).astype(np.float32),
    "reset": batch["reset"],
  }


def figures(_batch, *terms: jax.Array) -> tuple[jax.Array, Totals]:
  """`losses.note_cross_entropy` of the terms; there is no smoothing."""
  return losses.note_cross_entropy(*terms[:3])
