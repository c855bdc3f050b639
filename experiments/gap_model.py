"""Each symbol from those on both sides of it: p(symbol | left, right).

Two towers read the window, one from either end, and never mix below the head:
the symbol at t is predicted from the forward state at t-1 and the backward
state at t+1. A deep bidirectional network would not do: its second layer at
t-1 has read t through the backward half of the first.
"""

import numpy as np

# The symbols are those of a language model.
from experiments.language_model import VOCABULARIES as VOCABULARIES
from experiments.language_model import prepare as prepare
from seqrnn import layers, metrics, models
from seqrnn.config import Config
from seqrnn.data.segments import Segments
from seqrnn.data.vocabulary import END, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Experiment


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: settings of another kind of model.
  """
  data = config.data
  symbols = vocabularies["symbols"]
  if data.stateful:
    raise UserError(
      "data.stateful=True with task='gap_model': the backward tower has no"
      " carry to hand on; use task='language_model'"
    )
  if data.mapping != "many_to_many":
    raise UserError(
      f"data.mapping={data.mapping!r} with task='gap_model': it predicts every"
      " symbol of a window, many_to_many"
    )
  body = layers.Bidirectional(
    layers.Before(models.stack(config.model, len(symbols))),
    layers.Before(
      models.stack(config.model, len(symbols), reverse=True), reverse=True
    ),
    merge=config.model.merge,
  )
  model = models.sequence_model(config.model, body, len(symbols), pooled=False)
  segments = Segments(config, symbols, length=data.window, minimum=1)

  def targets(batch: Batch) -> Batch:
    segment_BT = batch.pop("segment")
    return {
      "inputs": segment_BT,
      "targets": segment_BT,
      # Begin and end are context: where they stand is no question.
      "weights": (segment_BT > END) * batch.pop("weight"),
      **batch,
    }

  def predict(params, carry, batch):
    ids_BT = batch["inputs"]
    start = model.initial_carry(ids_BT.shape[0])
    return carry, models.apply(model, params, ids_BT, start)[1]

  def loss(params, carry, batch, key):
    start = model.initial_carry(batch["inputs"].shape[0])
    loss, (_, totals) = models.loss(
      model, params, batch, start, key, config.train.label_smoothing
    )
    return loss, (carry, totals)

  def score(params, carry, batch):
    _, logits_BTV = predict(params, carry, batch)
    nll_BT = metrics.surprisal(logits_BTV, batch["targets"])
    return carry, nll_BT * batch["weights"]

  return Experiment(
    vocabularies=vocabularies,
    init=lambda key: models.init(model, key),
    carry=lambda _: (),
    loss=loss,
    facts=segments.facts,
    batches=lambda *split, **how: segments.batches(*split, **how).map(targets),
    predict=predict,
    score=score,
    decoder=None,
    forbidden=lambda T: np.eye(T, dtype=bool),
    fills_gaps=True,
  )
