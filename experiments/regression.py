"""One or several numbers for each text.

The network is that of classification. Its outputs, and the loss, are in
standard deviations from the mean of the training split; predictions are in the
unit of the table.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.config.rules import FINITE
from seqrnn.data import splits, vectors, vocabulary
from seqrnn.data.batches import labelled
from seqrnn.data.batches.segments import Split
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Carry, Experiment, Params, Report, Totals
from seqrnn.experiments import classification
from seqrnn.models import network
from seqrnn.runtime.compiled import Pure

# `numbers` has "name mean deviation" of each number in the training split.
VOCABULARIES = ("symbols", "numbers")
_TINY = np.finfo(np.float32).tiny  # The least deviation.


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabulary of the training split, and the scales of its numbers.

  Raises:
    UserError: a text has no number, or all have the same.
  """
  read, column = splits.checked_reader(config), config.data.label_column
  pieces = read("train")
  if pieces.corpus.labels is None:
    raise labelled.without_answers(config, "numbers", "csv, jsonl, tab")
  several = "," in pieces.corpus.labels.symbols[0]
  name = column or "number"
  names = name.split(",") if several else [name]
  numbers_DC = read_numbers(pieces, names, "train")
  if config.data.test_path is not None:
    read_numbers(read("test"), names, "test")
  classification.warn_of_few(len(pieces))
  scales = []
  for name, numbers_D in zip(names, numbers_DC.T, strict=True):
    spread = np.ptp(numbers_D.astype(np.float32)), numbers_D.std()
    value = f"{name!r}, {numbers_D[0]:g} in float32"  # As the loss reads it.
    why = f"the training split has one value of {value}; there must be two"
    require(config, min(spread) >= _TINY, why, "task")
    scales.append(f"{name} {numbers_D.mean()} {numbers_D.std()}")
  every = vectors.with_unlabelled(pieces, config.data)
  return {
    "symbols": vocabulary.of_pieces(every, config.data).padded(),
    "numbers": Vocabulary("number", tuple(scales)),
    **labelled.counted_terms(config, pieces),
  }


def read_numbers(pieces: Pieces, names: list[str], split: Split) -> np.ndarray:
  """The numbers of each piece, float64 [D, C]; NaN where one is unknown.

  Raises:
    UserError: a text has a value that is no number, in the files of a split,
      which may hold other splits, too.
  """
  labels, unknown = pieces.corpus.labels, [math.nan] * len(names)
  if labels is None:
    return np.array([unknown] * len(pieces))
  rows = [[*map(_number, text.split(","))] for text in labels.symbols]
  rows_VC = np.array([r if len(r) == len(names) else unknown for r in rows])
  wrong = np.flatnonzero(np.isnan(rows_VC[labels.ids]).any(1))
  if len(wrong) and isinstance(split, str):
    document = int(wrong[0])
    raise UserError(
      f"reading the {split} split: {pieces.corpus.names[document]}:"
      f" {', '.join(names)} = {labels[document]!r}: must be a number that"
      " float32 can hold, as 4.81: with a decimal point, no comma and no unit"
    )
  return rows_VC[labels.ids[pieces.document]]


def _number(text: str) -> float:
  """The number that a text is; NaN: none that float32 can hold."""
  with contextlib.suppress(ValueError):  # Python would read 1_03 as 103.
    if FINITE.holds(number := float(text.replace("_", "?"))):
      return number
  return math.nan


def build(config: Config, vocabularies: Mapping[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are."""
  scales = [text.rsplit(" ", 2) for text in vocabularies["numbers"].symbols]
  names = [name for name, _, _ in scales]
  scale_2C = np.array([s for _, *s in scales], np.float32).T
  symbols = len(vocabularies["symbols"])
  terms = labelled.terms_of(config, vocabularies)
  size = terms and terms.size
  model = network.text_model(config, symbols, True, len(names), terms=size)
  segments = labelled.text_segments(config, vocabularies["symbols"])

  @labelled.once_a_split
  def numbers(split: Split) -> np.ndarray:
    pieces = segments.pieces(split)
    return read_numbers(pieces, names, split).astype(np.float32)

  def columns(split: Split) -> Callable[[Batch], Batch]:
    asked = partial(labelled.answers, numbers(split))
    # As constants of a program they would be those of one training.
    scales = lambda batch: np.stack([scale_2C] * len(batch["document"]))
    return lambda batch: asked(batch) | {"scales": scales(batch)}

  return Experiment(
    vocabularies=vocabularies,
    init=Pure(network.init, model),
    loss=Pure(loss, model),
    facts=partial(classification.facts, segments, numbers),
    batches=partial(labelled.batches, segments, columns, terms),
    predict=Pure(predict, model),
    forbidden=None,
    unit="number",
    loss_unit="squared error",
    by_text=True,
    figures=partial(figures, names, scale_2C),
    report=Report(
      "It reads a text of {word}s and predicts " + ", ".join(names) + ".",
      ("mistakes",),
    ),
  )


def predict(
  model: network.SequenceModel, params: Params, carry: Carry, batch: Batch
) -> tuple[Carry, jax.Array]:
  """The carry, and the numbers in the unit of the table, [B, 1, C]."""
  carry, outputs_B1C = network.predict(model, params, carry, batch)
  mean_B1C, deviation_B1C = jnp.split(batch["scales"], 2, axis=1)
  return carry, outputs_B1C * deviation_B1C + mean_B1C


def loss(
  model: network.SequenceModel,
  params: Params,
  carry: Carry,
  batch: Batch,
  key: jax.Array | None,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """The squared error in squared deviations, a mean over numbers and texts."""
  carry, outputs_B1C = network.predict(model, params, carry, batch, key)
  mean_B1C, deviation_B1C = jnp.split(batch["scales"], 2, axis=1)
  # The deviation of a padded row is 0.
  true_B1C = (batch["targets"] - mean_B1C) / jnp.maximum(deviation_B1C, _TINY)
  squared_B1 = jnp.mean((outputs_B1C - true_B1C) ** 2, axis=-1)
  total = jnp.sum(squared_B1 * batch["weights"])
  weight = jnp.sum(batch["weights"])
  return total / jnp.maximum(weight, 1), (carry, {"loss": (total, weight)})


def figures(
  names, scale_2C, targets_NC: np.ndarray, numbers_NC: np.ndarray
) -> dict[str, float]:
  """The loss of texts, and r² and the root mean squared error of each number.

  r² is 1 - the squared error / that of the mean of the targets; 0 where all
  targets are equal.
  """
  error_C = ((numbers_NC - targets_NC) ** 2).mean(0)
  variance_C = targets_NC.var(0)
  deviation_C = scale_2C[1].astype(np.float64)  # For its square.
  figures = {"loss": float((error_C / deviation_C**2).mean())}
  for n, name in enumerate(names):
    end = f"_{name}" if len(names) > 1 else ""
    explained = 1 - error_C[n] / variance_C[n] if variance_C[n] else 0.0
    figures[f"r_squared{end}"] = float(explained)
    figures[f"rmse{end}"] = float(np.sqrt(error_C[n]))
  return figures
