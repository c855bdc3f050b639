"""The next frame of music: 88 notes, each on or off.

The notes of a frame are independent of each other, or, with `model.nade`, each
note depends on those below it. The loss is the negative log-likelihood in nats
a frame, the sum of 88 binary cross-entropies. Its mean is over the frames 2..T
of all pieces, every frame alike whatever its piece, as in the code of Bai et
al. 2018. In evaluation each frame is predicted from all that come before it in
its piece.
"""

from collections.abc import Mapping
from functools import cache, partial

import jax
import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.batches.segments import Request, cut
from seqrnn.data.batches.streams import StreamLayout, streams
from seqrnn.data.batches.windows import Batches, Shape
from seqrnn.data.read import music
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.experiment import (
  Batch,
  Carry,
  Decoder,
  Experiment,
  Params,
  Report,
  Totals,
)
from seqrnn.experiments.language_model import score
from seqrnn.models import losses, network

VOCABULARIES = ()  # A note is its number.


def prepare(_: Config) -> dict:
  """There is no vocabulary."""
  return {}


def build(config: Config, vocabularies: Mapping[str, Vocabulary]) -> Experiment:
  """The experiment; no music is read before its batches are."""
  model = network.note_model(config.model, music.NOTES)
  corpus = cache(partial(music.read_music, config.data))
  predict = partial(network.predict, model)
  example = np.zeros((1, 1, music.NOTES), np.float32)
  return Experiment(
    vocabularies=vocabularies,
    init=partial(network.init, model, inputs=example),
    carry=model.initial_carry,
    loss=partial(loss, model),
    facts=cache(lambda split: music.facts(corpus()[split])),
    batches=partial(batches, config, corpus),
    predict=predict,
    score=partial(score, predict, losses.note_surprisal),
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
    rows = StreamLayout(config.train.batch_size, data.window, whole=True)
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


def loss(
  model: network.SequenceModel,
  params: Params,
  carry: Carry,
  batch: Batch,
  key: jax.Array | None,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """The mean loss of a batch, the carry after it, and the totals."""
  carry, logits_BTV = network.predict(model, params, carry, batch, key)
  mean, totals = losses.note_cross_entropy(
    logits_BTV, batch["targets"], batch["weights"]
  )
  return mean, (carry, totals)
