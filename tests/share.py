"""A task that is none of the five: the share of a symbol in a text, a number.

It has all that a task must have, and no mode that needs symbols as an answer.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np

from seqrnn.data.batches.segments import Segments
from seqrnn.data.vocabulary import END, UNKNOWN
from seqrnn.experiment import Experiment
from seqrnn.experiments import parts
from seqrnn.experiments.language_model import VOCABULARIES as VOCABULARIES
from seqrnn.experiments.language_model import prepare as prepare
from seqrnn.models import network

WANTED = UNKNOWN + 1  # The most frequent symbol.


def targets(batch):
  inputs_BT = batch.pop("segment")
  count_B = (inputs_BT > END).sum(1)
  share_B = (inputs_BT == WANTED).sum(1) / np.maximum(count_B, 1)
  return {
    "inputs": inputs_BT,
    "targets": share_B[:, None].astype(np.float32),
    "weights": (count_B > 0)[:, None] * batch.pop("weight"),
    **batch,
  }


def errors(_batch, outputs_BN1, targets_BN, weights_BN, *_):
  error_BN = outputs_BN1[..., 0] - targets_BN
  squared = jnp.sum(error_BN**2 * weights_BN)
  absolute = jnp.sum(jnp.abs(error_BN) * weights_BN)
  weight = jnp.sum(weights_BN)
  totals = {"loss": (squared, weight), "absolute_error": (absolute, weight)}
  return squared / jnp.maximum(weight, 1), totals


def build(config, vocabularies):
  symbols = vocabularies["symbols"]
  model = parts.sequence_model(config, vocabularies, pooled=True, outputs=1)
  segments = Segments(config, symbols, length=config.data.window, minimum=1)
  return Experiment(
    vocabularies=vocabularies,
    init=partial(network.init, model),
    loss=partial(parts.loss, model, (errors, 0.0)),
    facts=segments.facts,
    batches=lambda *split, **how: segments.batches(*split, **how).map(targets),
    predict=partial(parts.predict, model),
    forbidden=None,
    unit="sequence",
    loss_unit="squared error",
  )
