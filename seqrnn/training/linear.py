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
_SHARES = np.array([0.125, 0.0, 0.25, 0.5, 0.75, 1.0])
# Nats by which a share must be more likely, times its distance from the first.
_SURE = 8.0
_TEMPERED = 4.0  # Nats that a temperature T costs, times log2(T)².
_COLDNESS = 2 ** np.arange(-3, 2.1, 0.5)  # Inverse temperatures of labels.
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
  wide = {"table": table_FV, "weights": np.float32(_weights(_SHARES[0]))}
  return {**params, "head": head, "wide": wide}


def _weights(share: float) -> np.ndarray:
  return np.array([share, 1 - share])


def choose_weights(
  config: Config, texts: int, examine: Callable[[np.ndarray], Examined | None]
) -> np.ndarray | None:
  """The weights, of the layers and of the wide part, that fit validation best.

  They are those of a mean. The farther the share of the layers is from the
  first one, the more likely it must be: a few texts prefer one by accident.
  Labels are compared at the temperature that each share fits best with; none
  shall win because the layers are less sure of all. The weights of labels are
  divided by the temperature that fits, where one far from 1 must fit more.

  Args:
    config: of the run.
    texts: the number of texts of validation.
    examine: a function of weights -> the figures and labels of validation.

  Returns:
    the weights; None: `examine` was stopped.
  """
  if config.model.logit_weights is not None:
    return np.array(config.model.logit_weights)
  if config.train.choice == "all":  # They are trained on.
    return _weights(_SHARES[0])
  labels = config.task == "classification"
  examined = []
  for share in (0, 1) if labels else _SHARES:
    found = examine(_weights(share))
    if found is None:
      return None
    examined.append(found)
  coldness_K = _COLDNESS if labels else np.ones(1)
  nats_of = _nats_of_labels if labels else partial(_nats_of_numbers, texts)
  nats_SK = nats_of(examined)
  far_S = np.abs(_SHARES - _SHARES[0])
  best = np.argmin(nats_SK.min(1) + _SURE * far_S)
  cold = np.argmin(nats_SK[best] + _TEMPERED * np.log2(coldness_K) ** 2)
  return coldness_K[cold] * _weights(_SHARES[best])


def describe(weights: tuple[float, float]) -> str:
  """A line for weights that validation has chosen."""
  layers, wide = weights
  total = layers + wide
  mean = f"it counts {wide / total:.3g}, and the layers {layers / total:.3g}"
  cold = f"; the temperature of labels is {1 / total:.2g}" * (total != 1)
  return f"model.wide: {mean}{cold}"


def _nats_of_labels(examined: list[Examined]) -> np.ndarray:
  """Minus the log-likelihood of known labels by share and temperature, [S, K].

  Args:
    examined: with the wide part alone, and with the layers alone.
  """
  columns = []
  for _, rows in examined:
    assert rows is not None and rows.log_p is not None, "texts have labels"
    known = rows.target > UNKNOWN
    target = rows.target[known] - len(RESERVED)
    columns.append(rows.log_p[known, len(RESERVED) :])
  wide_NV, layers_NV = columns

  def nats(share, coldness):
    log_p_NV = coldness * (share * layers_NV + (1 - share) * wide_NV)
    log_p_NV = scipy.special.log_softmax(log_p_NV, axis=1)
    return -log_p_NV[np.arange(len(target)), target].sum()

  return np.array([[nats(s, k) for k in _COLDNESS] for s in _SHARES])


def _nats_of_numbers(texts: int, examined: list[Examined]) -> np.ndarray:
  """Minus the log-likelihood, of a Gaussian, with each share, [S, 1]."""
  losses = np.array([[figures["loss"]] for figures, _ in examined])
  return texts / 2 * np.log(np.maximum(losses, _TINY))


def with_weights(params: Params, weights_2: np.ndarray) -> Params:
  """The parameters with other weights of the layers and the wide part."""
  wide = params["wide"]
  new = jax.device_put(np.float32(weights_2), wide["weights"].sharding)
  return {**params, "wide": {**wide, "weights": new}}


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
