"""The next frame of music: 88 notes, each on or off by itself.

The loss is the negative log-likelihood in nats a frame, the sum of 88 binary
cross-entropies. Its mean is over the frames 2..T of all pieces, every frame
alike whatever its piece, as in the code of Bai et al. 2018. In evaluation each
frame is predicted from all that come before it in its piece.
"""

import functools

import jax.numpy as jnp
import numpy as np

from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.data import music
from seqrnn.data.segments import Request, cut, skipped
from seqrnn.data.streams import Rows, streams
from seqrnn.data.vocabulary import PAD
from seqrnn.data.windows import Batches, Shape
from seqrnn.experiment import Batch, Decoder, Experiment
from seqrnn.models import losses, network
from seqrnn.models.scan import hold

VOCABULARIES = ()  # A note is its number.

# Fields that mean something for symbols alone, and what they must be.
_PLAIN = {
  "data.mapping": "many_to_many",
  "model.bidirectional": False,
  "model.embedding_size": None,
  "model.tied": False,
  "model.symbol_dropout": 0,
  "model.activation_penalty": 0,
  "model.change_penalty": 0,
  "train.label_smoothing": 0,
}


def prepare(_: Config) -> dict:
  """There is no vocabulary."""
  return {}


def build(config: Config, vocabularies: dict) -> Experiment:
  """The experiment; no music is read before its batches are.

  Raises:
    UserError: settings of a model of symbols.
  """
  data, train = config.data, config.train
  why = "frames of notes go straight into a causal network"
  config_lib.refuse_unless(config, _PLAIN, why)
  model = network.NoteModel(
    body=network.stack(config.model, None),
    notes=music.NOTES,
    initial_scale=config.model.initial_scale,
    input_noise=config.model.input_noise,
    products=network.products(config.model),
  )

  @functools.cache
  def corpus():
    return music.read(data)

  @functools.cache
  def facts(split):
    found = music.facts(corpus()[split])
    if split == "train":
      found |= skipped(config, music.bounds(corpus()[split]), minimum=2)
    return found

  def batches(split: str | list[np.ndarray], epoch: int) -> Batches:
    pieces = corpus()[split] if isinstance(split, str) else split
    sequences, frames = music.sequences(pieces)
    if isinstance(split, str) and split == "train":
      # A window longer than any piece would be padding.
      longest = int(np.diff(sequences.bounds).max())
      length = min(data.window + 1, longest)
      shape = Shape(length, data.window)
      made = cut(config, sequences, shape, Request(split, epoch))
    else:
      rows = Rows(train.batch_size, data.window, whole=True)
      made = streams(sequences, rows.fitted(sequences))

    def targets(batch: Batch) -> Batch:
      segment = batch["segment"]
      return {
        "inputs": frames[segment[:, :-1]],
        "targets": frames[segment[:, 1:]],
        "weights": (segment[:, 1:] != PAD).astype(np.float32),
        "reset": batch["reset"],
      }

    return made.map(targets)

  def apply(params, carry, batch, key=None):
    start = model.initial_carry(batch["inputs"].shape[0])
    carry = hold(~batch["reset"], carry, start)
    return network.apply(model, params, batch["inputs"], carry, key)

  def loss(params, carry, batch, key):
    carry, logits_BTV = apply(params, carry, batch, key)
    loss, totals = losses.note_cross_entropy(
      logits_BTV, batch["targets"], batch["weights"]
    )
    return loss, (carry, totals)

  def score(params, carry, batch):
    carry, logits_BTV = apply(params, carry, batch)
    nll_BT = losses.note_surprisal(logits_BTV, batch["targets"])
    return carry, nll_BT * batch["weights"]

  def next_frame(params, carry, notes_BV):
    carry, logits_B1V = network.apply(model, params, notes_BV[:, None], carry)
    return carry, logits_B1V[:, 0]

  return Experiment(
    vocabularies=vocabularies,
    init=lambda key: network.init(model, key, jnp.zeros((1, 1, music.NOTES))),
    carry=model.initial_carry,
    loss=loss,
    facts=facts,
    batches=batches,
    predict=apply,
    score=score,
    decoder=Decoder(model.initial_carry, next_frame),
    forbidden=lambda T: ~np.tri(T, dtype=bool),
    unit="frame",
  )
