"""The next symbol, from those before it.

many_to_many: every symbol of a window predicts the next one. many_to_one: a
window of past symbols predicts the one after it; there a bidirectional
network is legitimate, for the whole window lies in the past.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np

from seqrnn.config import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.segments import Segments
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Decoder, Experiment
from seqrnn.models import losses, network
from seqrnn.models.scan import hold

VOCABULARIES = ("symbols",)  # What `prepare` makes and `build` needs.


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabulary of the training split."""
  pieces = splits.reader(config)("train")
  return {"symbols": vocabulary.of_pieces(pieces, config.data)}


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: the model would see its targets, or settings exclude each other.
  """
  data, smoothing = config.data, config.train.label_smoothing
  symbols = vocabularies["symbols"]
  many_to_one = data.mapping == "many_to_one"
  if config.model.bidirectional and not many_to_one:
    raise UserError(
      "model.bidirectional=True with data.mapping='many_to_many': the backward"
      " direction reads the very symbols that are to be predicted; use"
      " task='gap_model' (configs/brnn.py) or data.mapping='many_to_one'"
    )
  if data.stateful and many_to_one:
    raise UserError(
      "data.stateful=True with data.mapping='many_to_one': only many_to_many"
      " hands its carry from batch to batch"
    )
  model = network.sequence_model(
    config.model,
    network.stack(
      config.model, len(symbols), bidirectional=config.model.bidirectional
    ),
    len(symbols),
    pooled=many_to_one,
  )
  segments = Segments(
    config, symbols, length=data.window + 1, minimum=2, full=many_to_one
  )

  def targets(batch: Batch) -> Batch:
    segment = batch.pop("segment")
    inputs_BT, targets_BN = segment[:, :-1], segment[:, 1:]
    read_BT = batch.pop("read", segment)
    truth_BN = read_BT[:, 1:]
    if many_to_one:
      # The last symbol is the target: the one after a full window, or the end
      # of a document that is shorter.
      last_B1 = np.maximum((segment != PAD).sum(1, keepdims=True) - 1, 0)
      targets_BN = np.take_along_axis(segment, last_B1, axis=1)
      before_BT = np.arange(inputs_BT.shape[1]) < last_B1
      inputs_BT = np.where(before_BT, inputs_BT, PAD)
      truth_BN = np.take_along_axis(read_BT, last_B1, axis=1)
    named = {}
    if read_BT is not segment:
      named = {"read": read_BT[:, :-1], "truth": truth_BN}
    return {
      "inputs": inputs_BT,
      "targets": targets_BN,
      "weights": (targets_BN != PAD) * batch.pop("weight"),
      **batch,
      **named,
    }

  def start(batch_size):
    return model.initial_carry(batch_size)

  def first(carry, batch):
    initial = start(batch["inputs"].shape[0])
    return hold(~batch["reset"], carry, initial) if data.stateful else initial

  def predict(params, carry, batch):
    last, logits_BNV = network.apply(
      model, params, batch["inputs"], first(carry, batch)
    )
    return last if data.stateful else carry, logits_BNV

  def loss(params, carry, batch, key):
    loss, (last, totals) = network.loss(
      model, params, batch, first(carry, batch), key, smoothing
    )
    return loss, (last if data.stateful else carry, totals)

  def score(params, carry, batch):
    carry, logits_BNV = predict(params, carry, batch)
    nll_BN = losses.surprisal(logits_BNV, batch["targets"])
    return carry, nll_BN * batch["weights"]

  def next_of_window(params, window_BT, symbol_B):
    # Training starts each window from the zero carry, so it is read anew for
    # each symbol: filled from the left, then moving on.
    T = data.window
    length_B1 = (window_BT != PAD).sum(1, keepdims=True)
    moved_BT = jnp.concatenate([window_BT[:, 1:], window_BT[:, :1]], axis=1)
    window_BT = jnp.where(length_B1 == T, moved_BT, window_BT)
    place_BT = jnp.arange(T)[None] == jnp.minimum(length_B1, T - 1)
    window_BT = jnp.where(place_BT, symbol_B[:, None], window_BT)
    initial = start(symbol_B.shape[0])
    _, logits_B1V = network.apply(model, params, window_BT, initial)
    return window_BT, logits_B1V[:, 0]

  def empty_window(batch_size):
    return jnp.full((batch_size, data.window), PAD, jnp.int32)

  return Experiment(
    vocabularies=vocabularies,
    init=lambda key: network.init(model, key),
    carry=start if data.stateful else lambda _: (),
    loss=loss,
    facts=segments.facts,
    batches=lambda *split, **how: segments.batches(*split, **how).map(targets),
    predict=predict,
    score=score,
    decoder=Decoder(empty_window, next_of_window)
    if many_to_one
    else Decoder(start, partial(network.next_symbol, model)),
    forbidden=None if many_to_one else lambda T: ~np.tri(T, dtype=bool),
    heads={"forward": predict},
  )
