"""The wide part of a new model, fitted to few texts by itself.

Its loss is convex: a penalty keeps it from the accidents of a few texts, and
no checkpoint has to be chosen. It then stays, and the layers learn the rest. Of
numbers it is a ridge regression, and of labels a logistic regression, where a
weight is penalised less if the log-count ratio of its term and label is large,
as in a naive Bayes SVM (Wang & Manning 2012).
"""

from typing import Any

import numpy as np
import scipy

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import RESERVED
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import network
from seqrnn.models.features import STEP
from seqrnn.runtime import private

_STRENGTH = 10.0  # Of the loss of a text; half the squares are the penalty.
_PENALTIES = 0.1, 0.3, 1.0, 3.0, 10.0  # Of squares, for numbers.


def is_fitted(experiment: Experiment, config: Config) -> bool:
  """Whether a model has a wide part that is fitted first, and then frozen."""
  wide = shapes(experiment).get("wide")
  return wide is not None and network.fits_wide(config, wide["table"].size)


def fitted(experiment: Experiment, params: Params) -> Params:
  """The parameters, with the wide part of a regression.

  The head starts at zero, so that the model first computes the regression. All
  processes have the table of the first one, as rounding may differ.
  """
  x_NF, y_NV = _texts(experiment)
  terms = np.count_nonzero(x_NF.getnnz(0))  # The others are padding.
  print(f"model.wide: fitted first, to {terms:,} terms; then it stays")
  regression = _ridge if experiment.names is None else _logistic
  table_FV = private.of_first_process(regression(x_NF, y_NV) / STEP)
  kernel_HV = np.zeros_like(params["head"]["kernel"])
  head = {**params["head"], "kernel": kernel_HV}
  return {**params, "head": head, "wide": {"table": table_FV}}


def _ridge(x_NF: Any, y_NV: np.ndarray) -> np.ndarray:
  from scipy.sparse import linalg

  some = slice(None, None, -(-len(y_NV) // 2_000))  # At most so many.
  kernel_NN = (x_NF[some] @ x_NF[some].T).toarray()

  def squares(penalty):  # Of the errors of texts that are left out.
    inverse_NN = np.linalg.inv(kernel_NN + penalty * np.eye(len(kernel_NN)))
    error_NV = inverse_NN @ y_NV[some] / inverse_NN.diagonal()[:, None]
    return (error_NV**2).sum()

  how = {"damp": min(_PENALTIES, key=squares) ** 0.5, "iter_lim": 100}
  columns = [linalg.lsqr(x_NF, y_N, **how)[0] for y_N in y_NV.T]
  whole_FV = np.stack(columns, axis=1).astype(np.float32)
  return (1 - network.SHARES["regression"][0]) * whole_FV


def _logistic(x_NF: Any, truth_NV: np.ndarray) -> np.ndarray:
  from scipy import optimize  # Most trainings, and a follower, do without.

  xt_FN = x_NF.T.tocsr()
  has_FN = (xt_FN > 0).astype(np.float32)
  # The texts of each label, and of others, that have a term.
  of_FV, others_FV = 1 + has_FN @ truth_NV, 1 + has_FN @ (1 - truth_NV)
  real_F = has_FN.getnnz(1) > 0  # The others are padding.
  of_V, others_V = of_FV[real_F].sum(0), others_FV[real_F].sum(0)
  ratio_FV = np.log(of_FV / of_V) - np.log(others_FV / others_V)
  scale_FV = np.sqrt(1 + ratio_FV.astype(np.float32) ** 2)

  def loss(flat):
    free_FV = flat.astype(np.float32).reshape(scale_FV.shape)
    log_p_NV = scipy.special.log_softmax(x_NF @ (scale_FV * free_FV), axis=1)
    error_NV = _STRENGTH * (np.exp(log_p_NV) - truth_NV)
    gradient_FV = scale_FV * (xt_FN @ error_NV) + free_FV
    value = 0.5 * (free_FV**2).sum() - _STRENGTH * (log_p_NV * truth_NV).sum()
    return float(value), gradient_FV.ravel().astype(float)

  start = np.zeros(scale_FV.size)
  best, *_ = optimize.fmin_l_bfgs_b(loss, start, m=5, maxiter=50)
  return scale_FV * best.astype(np.float32).reshape(scale_FV.shape)


def _texts(experiment: Experiment) -> tuple[Any, np.ndarray]:
  """The terms of each training text, and what is to be predicted.

  Labels are rows of 0 and 1, and numbers are in standard deviations.
  """
  rows, targets, last = [], [], -1
  for batch in experiment.batches("train", None, ordered=True):
    new = np.diff(batch["document"], prepend=last) > 0  # No later window.
    rows.append(scipy.sparse.csr_matrix(batch["terms"][new]))
    targets.append(batch["targets"][new, 0])
    last = batch["document"][-1]
  x_NF: Any = scipy.sparse.vstack(rows, "csr")
  y_N = np.concatenate(targets)
  if experiment.names is None:
    mean_C, deviation_C = batch["scales"][0]
    return x_NF, (y_N - mean_C) / deviation_C
  ids_V = np.arange(len(RESERVED), len(experiment.names))
  y_NV = (y_N[:, None] == ids_V).astype(np.float32)
  known = y_NV.any(1)  # A refit may read labels that training has not seen.
  return x_NF[known], y_NV[known]
