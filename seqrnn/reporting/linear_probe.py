"""A linear probe: how well the states of a network tell labels of texts apart.

A logistic regression predicts the label from the mean state of a text (Alain &
Bengio 2017, "Understanding intermediate layers using linear classifier
probes"). It is fitted on the training split, its penalty is chosen on the
validation split, and its accuracy is that of the test split.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from seqrnn.data.corpora import SPLITS
from seqrnn.data.splits import Pieces
from seqrnn.experiment import Params
from seqrnn.inference import states
from seqrnn.inference.evaluation import evaluator
from seqrnn.inference.states import Reading
from seqrnn.reporting import page
from seqrnn.reporting.page import Element, element, section
from seqrnn.reporting.subject import Subject
from seqrnn.runtime import sharding

_TEXTS = {"train": 2000, "validation": 500, "test": 1000}  # That are read.
_SYMBOLS = 1000  # Of each text that are read.
_PENALTIES = (1.0, 0.1, 0.01, 0.001)  # From the strongest on.
_STEPS = 100  # Of L-BFGS for each penalty.


class Labelled(NamedTuple):
  """Vectors of texts, float64 [N, D], and their labels, int [N].

  A label that the training split lacks is -1.
  """

  x_ND: np.ndarray
  label_N: np.ndarray


def logistic(
  train: Labelled, labels: int, penalty: float, start: np.ndarray
) -> np.ndarray:
  """The weights [D + 1, C] of a logistic regression; the last are biases.

  They minimise the mean cross-entropy and penalty / 2 times the squares of all
  weights but the biases.

  Args:
    train: the texts.
    labels: C.
    penalty: above 0.
    start: weights [D + 1, C] to begin with.
  """
  x_NE = _with_ones(train.x_ND)
  N = len(x_NE)
  true_NC = np.eye(labels)[train.label_N]
  counted_E1 = np.ones((x_NE.shape[1], 1))
  counted_E1[-1] = 0

  def loss(flat):
    weights_EC = flat.reshape(-1, labels)
    logs_NC = log_softmax(x_NE @ weights_EC, axis=1)
    decay_EC = penalty * weights_EC * counted_E1
    value = -(logs_NC * true_NC).sum() / N + (decay_EC * weights_EC).sum() / 2
    slope_EC = x_NE.T @ (np.exp(logs_NC) - true_NC) / N + decay_EC
    return value, slope_EC.ravel()

  found = minimize(
    loss,
    start.ravel(),
    jac=True,
    method="L-BFGS-B",
    options={"maxiter": _STEPS},
  )
  return found.x.reshape(-1, labels)


def _with_ones(x_ND: np.ndarray) -> np.ndarray:
  return np.concatenate([x_ND, np.ones((len(x_ND), 1))], axis=1)


def accuracy(weights: np.ndarray, texts: Labelled) -> float:
  """The share of texts whose label is the most likely one."""
  best_N = (_with_ones(texts.x_ND) @ weights).argmax(1)
  return float(np.mean(best_N == texts.label_N))


def probe(
  train: Labelled, validation: Labelled, test: Labelled, labels: int
) -> float:
  """The accuracy on the test texts, with the best penalty on validation."""
  mean_D, scale_D = train.x_ND.mean(0), train.x_ND.std(0)
  scale_D[scale_D == 0] = 1
  train, validation, test = (
    texts._replace(x_ND=(texts.x_ND - mean_D) / scale_D)
    for texts in (train, validation, test)
  )
  weights = np.zeros((len(mean_D) + 1, labels))
  best = (-1.0, 0.0)
  for penalty in _PENALTIES:
    weights = logistic(train, labels, penalty, weights)
    reached = accuracy(weights, validation)
    if reached > best[0]:  # Of equal ones, the strongest penalty.
      best = reached, accuracy(weights, test)
  return best[1]


def sections(subject: Subject) -> list[Element]:
  """The section on the probe; none if the texts have no labels."""
  experiment = subject.experiment
  if (
    experiment.predict is None
    or experiment.reads != "symbol"
    or not all(split in subject.facts for split in SPLITS)
    or subject.read("train").corpus.labels is None
  ):
    return []
  pieces = {split: _some(subject, split) for split in SPLITS}
  names = {split: _labels(found) for split, found in pieces.items()}
  known = {name: i for i, name in enumerate(sorted(set(names["train"])))}
  if len(known) < 2:
    return []
  ids = {
    split: np.array([known.get(name, -1) for name in found])
    for split, found in names.items()
  }

  def reached(params: Params) -> float:
    train, validation, test = (
      Labelled(_vectors(subject, params, pieces[split]), ids[split])
      for split in SPLITS
    )
    return probe(train, validation, test, len(known))

  fresh = sharding.jit(experiment.init)(jax.random.key(subject.config.seed))
  frequent = np.bincount(ids["train"]).argmax()
  rows = {"a probe of this network": reached(subject.params)}
  if experiment.unit == "label":
    mesh = sharding.one_device()
    batches = experiment.batches(pieces["test"], 0)
    figures = evaluator(experiment, mesh)(subject.params, batches)
    assert figures is not None, "nothing stops this evaluation"
    rows["this network itself"] = figures["accuracy"]
  rows["a probe of the network before training"] = reached(fresh)
  rows["always the most frequent label"] = float(
    np.mean(ids["test"] == frequent)
  )
  return [
    section(
      "Linear probe",
      element(
        "p",
        f"Accuracy on {len(ids['test']):,} texts of the test split,"
        f" {subject.learned('test')}, with {len(known)} labels. A probe is a"
        " logistic regression from the mean state of the last layer to the"
        f" label, fitted on {len(ids['train']):,} training texts; its penalty"
        f" was chosen on {len(ids['validation']):,} validation texts.",
      ),
      page.table(
        ["classifier", "accuracy"],
        [[name, f"{value:.1%}"] for name, value in rows.items()],
        "Accuracy of a linear probe",
      ),
    )
  ]


def _some(subject: Subject, split: str) -> Pieces:
  """Some texts of a split; a model of symbols reads their beginnings."""
  pieces = subject.read(split)
  count = min(_TEXTS[split], len(pieces))
  chosen = np.random.default_rng(0).choice(len(pieces), count, replace=False)
  chosen.sort()
  names = ("document", "starts", "stops", "begins", "ends")
  found = dataclasses.replace(
    pieces, **{name: getattr(pieces, name)[chosen] for name in names}
  )
  if subject.experiment.unit != "symbol":
    return found
  stops = np.minimum(found.stops, found.starts + _SYMBOLS)
  ends = found.ends & (stops == found.stops)
  return dataclasses.replace(found, stops=stops, ends=ends)


def _labels(pieces: Pieces) -> list[str]:
  """The label of each text."""
  labels = pieces.corpus.labels
  assert labels is not None, "checked by the caller"
  return [str(labels[j]) for j in pieces.document.tolist()]


def _vectors(subject: Subject, params: Params, pieces: Pieces) -> np.ndarray:
  """The mean state of each text, float64 [texts, D]."""
  experiment, data = subject.experiment, subject.config.data
  reading = Reading(
    experiment, params, states.whole(experiment, pieces, data.boundaries)
  )
  blocks = [block.vectors for block in states.texts(reading, "mean")]
  return np.concatenate(blocks).astype(np.float64)
