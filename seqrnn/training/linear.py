"""The wide part of a new model, fitted to few labelled texts by itself.

Its loss is convex: a penalty keeps it from the accidents of a few texts, and
no checkpoint has to be chosen. It then stays, and the layers learn the rest. A
weight is penalised less where the log-count ratio of its term and label is
large, as in a naive Bayes SVM (Wang & Manning 2012).
"""

from typing import Any

import numpy as np
from scipy import optimize, sparse

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import RESERVED
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import network
from seqrnn.models.features import STEP

_STRENGTH = 10.0  # Of the loss of a text; half the squares are the penalty.
_LIMITS = {"maxiter": 50, "maxcor": 5}


def is_fitted(experiment: Experiment, config: Config) -> bool:
  """Whether a model has a wide part that is fitted first, and then frozen."""
  wide = shapes(experiment).get("wide")
  return wide is not None and network.fits_wide(config, wide["table"].size)


def fitted(experiment: Experiment, params: Params) -> Params:
  """The parameters, with the wide part of a logistic regression of labels.

  The head starts at zero, so that the model first computes the regression.
  """
  head = params["head"]
  x_NF, truth_NV = _texts(experiment, len(head["bias"]))
  xt_FN = x_NF.T.tocsr()
  scale_FV = np.sqrt(1 + _log_ratio(xt_FN, truth_NV) ** 2)

  def loss(flat):
    free_FV = flat.astype(np.float32).reshape(scale_FV.shape)
    logits_NV = x_NF @ (scale_FV * free_FV)
    logits_NV -= logits_NV.max(1, keepdims=True)
    p_NV = np.exp(logits_NV)
    total_N1 = p_NV.sum(1, keepdims=True)
    nll = np.log(total_N1).sum() - (logits_NV * truth_NV).sum()
    error_NV = _STRENGTH * (p_NV / total_N1 - truth_NV)
    gradient_FV = scale_FV * (xt_FN @ error_NV) + free_FV
    value = _STRENGTH * float(nll) + 0.5 * float((free_FV**2).sum())
    return value, gradient_FV.ravel().astype(float)

  print(f"model.wide: fitted first, to {len(scale_FV):,} terms; then it stays")
  options = {"method": "L-BFGS-B", "options": _LIMITS, "jac": True}
  best = optimize.minimize(loss, np.zeros(scale_FV.size), **options)
  free_FV = best.x.astype(np.float32).reshape(scale_FV.shape)
  head = {**head, "kernel": np.zeros_like(head["kernel"])}
  return {**params, "head": head, "wide": {"table": scale_FV * free_FV / STEP}}


def _texts(experiment: Experiment, V: int) -> tuple[Any, np.ndarray]:
  """The terms of each training text, and its label as a row of 0 and 1."""
  rows, ids, last = [], [], -1
  for batch in experiment.batches("train", None, ordered=True):
    new = np.diff(batch["document"], prepend=last) > 0  # No later window.
    rows.append(sparse.csr_matrix(batch["terms"][new]))
    ids.append(batch["targets"][new, 0] - len(RESERVED))
    last = batch["document"][-1]
  truth_NV = np.eye(V, dtype=np.float32)[np.concatenate(ids)]
  return sparse.vstack(rows, "csr"), truth_NV


def _log_ratio(xt_FN: Any, truth_NV: np.ndarray) -> np.ndarray:
  """The log-count ratio of each term for each label, [F, V]."""
  has_FN = (xt_FN > 0).astype(np.float32)
  of_FV, others_FV = 1 + has_FN @ truth_NV, 1 + has_FN @ (1 - truth_NV)
  real_F1 = (has_FN.getnnz(1) > 0)[:, None]  # The others are padding.
  of_V, others_V = (of_FV * real_F1).sum(0), (others_FV * real_F1).sum(0)
  ratio_FV = np.log(of_FV / of_V) - np.log(others_FV / others_V)
  return ratio_FV.astype(np.float32)
