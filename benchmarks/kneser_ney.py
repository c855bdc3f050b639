"""N-grams on the data of a language model: the baseline of RESULTS.md.

  python benchmarks/kneser_ney.py runs/mine
  python benchmarks/kneser_ney.py runs/mine validation  # No test split.

Prints the bits per symbol of interpolated Kneser-Ney with three discounts (Chen
& Goodman 1999), for the splits and the vocabulary of the run in this workdir.
The order has the fewest bits on validation.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn import experiments
from seqrnn.config import derived
from seqrnn.run import load_run

_ORDERS = 10  # The highest order.


class Grams(NamedTuple):
  """The n-grams of one length, each with a number.

  Attributes:
    gram: the n-gram that ends with each symbol, int64 [symbols].
    context: the one that the symbol follows, a symbol shorter, likewise.
    first: where each n-gram of the training split ends for the first time.
  """

  gram: np.ndarray
  context: np.ndarray
  first: np.ndarray


def symbols(batches) -> tuple[np.ndarray, np.ndarray]:
  """All ids of a stream, int64 [symbols], and which are predicted, bool."""
  ids, predicted = [], []
  for batch in batches:
    first = batch["inputs"][0, : int(batch["reset"][0])]
    targets = batch["targets"][0][batch["weights"][0] > 0]
    ids += [first, targets]
    predicted += [np.zeros(len(first), bool), np.ones(len(targets), bool)]
  return np.concatenate(ids).astype(np.int64), np.concatenate(predicted)


def discounts(counts: np.ndarray) -> np.ndarray:
  """What is subtracted from counts of 0, 1, 2, and 3 or more, float64 [4]."""
  n = np.bincount(np.minimum(counts, 5), minlength=6)
  if not n[1:4].all():  # There are few n-grams, and all are frequent.
    return np.array([0, 0.5, 0.5, 0.5])
  m = np.arange(1, 4)
  ratio = n[1] / (n[1] + 2 * n[2])
  return np.append(0, np.clip(m - (m + 1) * ratio * n[2:5] / n[1:4], 0, m))


def interpolated(
  grams: Grams, counted: np.ndarray, asked: np.ndarray, lower: np.ndarray
) -> np.ndarray:
  """The probability of each symbol that is asked for.

  Args:
    grams: of this order.
    counted: the places of symbols that count. All of the training split give
      frequencies; the `first` of the next order, numbers of continuations.
    asked: the places of symbols to predict.
    lower: their probabilities by the order below.
  """
  gram, context, first = grams
  counts = np.bincount(gram[counted], minlength=gram.max() + 1)
  cut = discounts(counts[gram[first]])[np.minimum(counts, 3)]
  of_context = lambda values: np.bincount(
    context[first], values[gram[first]], minlength=context.max() + 1
  )[context[asked]]
  total = of_context(counts)
  shares = (counts - cut)[gram[asked]] + of_context(cut) * lower
  return np.where(total > 0, shares / np.maximum(total, 1), lower)


def probabilities(train: tuple, text: tuple, V: int) -> list[np.ndarray]:
  """The probability of each predicted symbol of a text, by order, from 1.

  Args:
    train: of the training split, as `symbols` returns them.
    text: those to predict.
    V: the number of ids.
  """
  ids, predicted = map(np.concatenate, zip(train, text, strict=True))
  place = np.flatnonzero(predicted)
  counted, asked = np.split(place, [np.searchsorted(place, len(train[0]))])

  def longer(gram: np.ndarray) -> Grams:
    context = np.append(0, gram[:-1])
    gram = np.unique(context * V + ids, return_inverse=True)[1]
    _, first = np.unique(gram[counted], return_index=True)
    return Grams(gram, context, counted[first])

  grams, result = longer(np.zeros_like(ids)), []
  lower = np.full(len(asked), 1 / V)
  for _ in range(_ORDERS):
    above = longer(grams.gram)
    result.append(interpolated(grams, counted, asked, lower))
    lower = interpolated(grams, above.first, asked, lower)
    grams = above
  return result


def main():
  """Prints the bits of the best order."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("workdir", type=Path)
  parser.add_argument("splits", nargs="*", default=["test"])
  arguments = parser.parse_args()
  run = load_run(arguments.workdir)
  config, vocabularies = run.config, run.experiment.vocabularies
  one = experiments.build(derived.streams(config, 4096, 1), vocabularies)
  read = lambda split: symbols(one.batches(split, 0))
  train, V = read("train"), len(vocabularies["symbols"])
  bits = {
    split: [-np.log2(p).mean() for p in probabilities(train, read(split), V)]
    for split in dict.fromkeys(("validation", *arguments.splits))
  }
  order = int(np.argmin(bits["validation"]))
  figures = [f"{split} {each[order]:.3f}" for split, each in bits.items()]
  print(f"Kneser-Ney, order {order + 1}: {', '.join(figures)} bits per symbol")


if __name__ == "__main__":
  main()
