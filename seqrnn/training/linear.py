"""The wide part of a new model, fitted to few texts by itself.

Its loss is convex: a penalty keeps it from the accidents of a few texts, and
no checkpoint has to be chosen. It then stays, and the layers are trained apart.
Of numbers it is a ridge regression, and of labels a logistic regression, where
a weight is penalised less if the log-count ratio of its term and label is
large, as in a naive Bayes SVM (Wang & Manning 2012).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import scipy

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import RESERVED, UNKNOWN
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import network
from seqrnn.models.features import STEP
from seqrnn.runtime import private
from seqrnn.scoring.evaluation import Examined

# Of the layers, in the mean of their logits and those of the wide part: the
# first one, and those that validation may choose instead.
_SHARES = 0.125, 0.0, 0.25, 0.5, 0.75, 1.0
# Nats by which a share must be more likely, times its distance from the first.
_SURE = 8.0
_TEMPERATURES = 2 ** np.arange(-3, 2.1, 0.5)  # Their inverses.
_TINY = 1e-30  # The least loss of numbers.
_STRENGTH = 30.0  # Of the loss of a text; half the squares are the penalty.
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
  share = np.float32(_SHARES[0])
  wide = {"table": table_FV, "share": share}
  return {**params, "head": head, "wide": wide}


def choose_share(
  config: Config, texts: int, examine: Callable[[float], Examined | None]
) -> float | None:
  """The share of the layers that fits validation best.

  The farther it is from the first one, the more likely it must be: a few texts
  prefer one by accident. Labels are compared at the temperature that each share
  fits best with; none shall win because the layers are less sure of all.

  Args:
    config: of the run.
    texts: the number of texts of validation.
    examine: a function of a share -> the figures and labels of validation.

  Returns:
    the share; None: `examine` was stopped.
  """
  if config.model.layers_share is not None:
    return config.model.layers_share
  if config.train.choice == "all":  # They are trained on.
    return _SHARES[0]
  labels = config.task == "classification"
  examined = []
  for share in (0, 1) if labels else _SHARES:
    found = examine(share)
    if found is None:
      return None
    examined.append(found)
  nats_of = _nats_of_labels if labels else partial(_nats_of_numbers, texts)
  far = np.abs(np.array(_SHARES) - _SHARES[0])
  return _SHARES[int(np.argmin(nats_of(examined) + _SURE * far))]


def _nats_of_labels(examined: list[Examined]) -> np.ndarray:
  """Minus the log-likelihood of known labels with each share.

  Args:
    examined: with the wide part alone, and with the layers alone.
  """
  columns = []
  for _, rows in examined:
    assert rows is not None and rows.log_p is not None, "texts have labels"
    known = rows.target > UNKNOWN
    target = rows.target[known] - len(RESERVED)
    columns.append(rows.log_p[known, len(RESERVED) :])
  log_p_2NV, nats = np.stack(columns), []
  for share in _SHARES:
    log_p_NV = np.tensordot([1 - share, share], log_p_2NV, 1)
    tempered = (
      scipy.special.log_softmax(t * log_p_NV, axis=1) for t in _TEMPERATURES
    )
    nats.append(min(-x[np.arange(len(x)), target].sum() for x in tempered))
  return np.array(nats)


def _nats_of_numbers(texts: int, examined: list[Examined]) -> np.ndarray:
  """Minus the log-likelihood, of a Gaussian, with each share."""
  losses = np.array([figures["loss"] for figures, _ in examined])
  return texts / 2 * np.log(np.maximum(losses, _TINY))


def with_share(params: Params, share: float) -> Params:
  """The parameters with another share of the layers."""
  wide = params["wide"]
  new = jax.device_put(np.float32(share), wide["share"].sharding)
  return {**params, "wide": {**wide, "share": new}}


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
  return np.stack(columns, axis=1).astype(np.float32)


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
