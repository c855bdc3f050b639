"""Cross-entropies of symbols, notes and labels; a NADE of notes; metrics.

A metric is a (total, weight) pair: summed on the device, divided once.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.experiment import Params, Totals
from seqrnn.models.cell import uniform


def surprisal(logits_BNV: jax.Array, targets_BN: jax.Array) -> jax.Array:
  """-log p(target) in nats, [B, N]."""
  return _surprisal_parts(logits_BNV, targets_BN)[0]


def _surprisal_parts(
  logits_BNV: jax.Array, targets_BN: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The surprisal, the target's logit and the highest logit, each [B, N].

  The highest logit has no gradient.
  """
  logits_NV = logits_BNV.reshape(-1, logits_BNV.shape[-1])
  logit_N = _pick(logits_NV, targets_BN.reshape(-1))
  # The maximum with the target's logit changes no value. But XLA must then read
  # the target's logit before it computes exp, so it can write exp over the
  # logits, which take the most memory with a large vocabulary.
  top_N = jnp.maximum(jnp.max(logits_NV, axis=-1), logit_N)
  top_N = jax.lax.stop_gradient(top_N)
  sum_N = jnp.sum(jnp.exp(logits_NV - top_N[:, None]), axis=-1)
  nll_N = jnp.log(sum_N) + top_N - logit_N
  shape = targets_BN.shape
  return nll_N.reshape(shape), logit_N.reshape(shape), top_N.reshape(shape)


@jax.custom_vjp
def _pick(x_NV: jax.Array, ids_N: jax.Array) -> jax.Array:
  """The element of each row with that id, [N]."""
  return jnp.take_along_axis(x_NV, ids_N[:, None], axis=1, mode="clip")[:, 0]


def _pick_backward(saved, d_N):
  ids_N, V = saved
  # JAX's own gradient takes one more pass over [N, V]. XLA fuses this one with
  # the gradient of the sum over all symbols.
  own_NV = jnp.arange(V)[None] == ids_N[:, None]
  return jnp.where(own_NV, d_N[:, None], 0), None


_pick.defvjp(
  lambda x_NV, ids_N: (_pick(x_NV, ids_N), (ids_N, x_NV.shape[1])),
  _pick_backward,
)


def entropy(logits_BNV: jax.Array) -> jax.Array:
  """-sum of p log p in nats, [B, N]."""
  # Without log_softmax, whose gradient saves an array [B, N, V].
  above_BNV = logits_BNV - jnp.max(logits_BNV, axis=-1, keepdims=True)
  odds_BNV = jnp.exp(above_BNV)
  sum_BN = jnp.sum(odds_BNV, axis=-1)
  return jnp.log(sum_BN) - jnp.sum(odds_BNV * above_BNV, axis=-1) / sum_BN


def cross_entropy(
  logits_BNV: jax.Array,
  targets_BN: jax.Array,
  weights_BN: jax.Array,
  smoothing: float = 0.0,
) -> tuple[jax.Array, Totals]:
  """The categorical cross-entropy in nats a target, and the totals.

  The mean is over the weight of the whole batch, so it depends neither on how
  rows are split over devices nor on padding, whose weight is 0.

  Args:
    logits_BNV: of the model.
    targets_BN: the true symbols.
    weights_BN: of the targets.
    smoothing: the share of a target's weight that is spread over all symbols
      (Szegedy et al. 2016). The totals do not include this.
  """
  nll_BN, logit_BN, top_BN = _surprisal_parts(logits_BNV, targets_BN)
  # Whether no symbol is more likely. XLA's argmax takes longer than the rest.
  hits_BN = logit_BN >= top_BN
  # Of equal logits, argmax, and so `best_ids`, has the first.
  id_11V = jnp.arange(logits_BNV.shape[-1])[None, None]
  before_BNV = id_11V < targets_BN[..., None]
  tied_BN = jnp.any(before_BNV & (logits_BNV == top_BN[..., None]), axis=-1)
  # One sum over all devices. A sum of the weights alone would run before the
  # network, where a device that arrives early would block.
  terms = [nll_BN, hits_BN, jnp.ones_like(nll_BN)]
  if smoothing:
    above_BN = logit_BN - jnp.mean(logits_BNV, axis=-1)
    terms.append(nll_BN + smoothing * above_BN)
  sums = jnp.sum(jnp.stack(terms) * weights_BN[None], axis=(1, 2))
  total, hits, weight = sums[:3]
  hits -= jnp.sum(weights_BN * (hits_BN & tied_BN))
  totals = {"loss": (total, weight), "accuracy": (hits, weight)}
  trained = sums[3] if smoothing else total
  return trained / jnp.where(weight > 0, weight, 1), totals


def note_surprisal(logits_BTV: jax.Array, notes_BTV: jax.Array) -> jax.Array:
  """-log p(frame) in nats, [B, T]: the sum over its notes."""
  nats_BTV = notes_BTV * nn.log_sigmoid(logits_BTV)
  nats_BTV += (1 - notes_BTV) * nn.log_sigmoid(-logits_BTV)
  return -jnp.sum(nats_BTV, axis=-1)


def note_cross_entropy(
  logits_BTV: jax.Array, notes_BTV: jax.Array, weights_BT: jax.Array
) -> tuple[jax.Array, Totals]:
  """The binary cross-entropy of notes, in nats a frame, and the totals.

  The accuracy is TP / (TP + FP + FN), counted over notes (Bay et al. 2009).
  With Nade, a note is predicted from the true notes below it.
  """
  true_BTV, found_BTV = notes_BTV > 0, logits_BTV > 0
  hits_BT = jnp.sum(true_BTV & found_BTV, axis=-1, dtype=jnp.float32)
  either_BT = jnp.sum(true_BTV | found_BTV, axis=-1, dtype=jnp.float32)
  nll_BT = note_surprisal(logits_BTV, notes_BTV)
  # One sum over all devices, as in `cross_entropy`.
  terms_4BT = jnp.stack([nll_BT, jnp.ones_like(nll_BT), hits_BT, either_BT])
  sums_4 = jnp.sum(terms_4BT * weights_BT[None], axis=(1, 2))
  total, weight, hits, either = sums_4
  totals = {"loss": (total, weight), "accuracy": (hits, either)}
  return total / jnp.where(weight > 0, weight, 1), totals


class Nade(nn.Module):
  """The logits of the notes of a frame, each from the notes below it.

  NADE (Uria et al. 2016), whose biases b, c are outputs of a recurrent network
  at the frame before (RNN-NADE, Boulanger-Lewandowski et al. 2012):

    h_i = sigmoid(c + sum over j < i of v_j W_j)
    p(v_i = 1 | v_1 ... v_{i-1}) = sigmoid(b_i + h_i . U_i)

  W is `note_kernel`, U `output_kernel`, both [V, N] for N hidden units.

  Attributes:
    notes: V.
    units: N.
  """

  notes: int
  units: int

  @nn.compact
  def __call__(self, biases_BTO: jax.Array, notes_BTV: jax.Array) -> jax.Array:
    """The logits_BTV of notes_BTV; b and c side by side, O = V + N."""
    shape = self.notes, self.units
    params = {
      name: self.param(name, uniform(self.units**-0.5), shape)
      for name in ("note_kernel", "output_kernel")
    }
    return nade(params, biases_BTO, notes_BTV, lambda _, note: note)[0]


def nade(
  params: Params,
  biases_XO: jax.Array,
  values_XV: jax.Array,
  choose: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """The logits and the notes of frames, one note after another, each [X, V].

  Args:
    params: of Nade.
    biases_XO: b and c of each frame.
    values_XV: for `choose`.
    choose: logits_X and values_X of a note -> the note, 0 or 1.
  """
  V = len(params["note_kernel"])
  b_VX, v_VX = (jnp.moveaxis(x, -1, 0) for x in (biases_XO[..., :V], values_XV))

  # Without the hidden units of each note in memory, training takes half the
  # time on a CPU, or less.
  @jax.checkpoint
  def step(sum_XN, at):
    note_N, output_N, b_X, value_X = at
    logits_X = b_X + jax.nn.sigmoid(sum_XN) @ output_N
    note_X = choose(logits_X, value_X)
    return sum_XN + jnp.multiply.outer(note_X, note_N), (logits_X, note_X)

  kernels = params["note_kernel"], params["output_kernel"]
  _, both = lax.scan(step, biases_XO[..., V:], (*kernels, b_VX, v_VX))
  logits_XV, notes_XV = (jnp.moveaxis(x, 0, -1) for x in both)
  return logits_XV, notes_XV


def over_ids(logits_BNC: jax.Array) -> jax.Array:
  """Logits of labels as logits of ids, [B, N, V]; reserved ids have -inf."""
  reserved = [(0, 0), (0, 0), (UNKNOWN + 1, 0)]
  return jnp.pad(logits_BNC, reserved, constant_values=-jnp.inf)


def best_ids(logits_BNC: jax.Array) -> jax.Array:
  """The ids of the most likely labels, [B, N]."""
  return jnp.argmax(logits_BNC, axis=-1) + UNKNOWN + 1


def label_cross_entropy(
  logits_BNC: jax.Array,
  targets_BN: jax.Array,
  weights_BN: jax.Array,
  smoothing: float = 0.0,
) -> tuple[jax.Array, Totals]:
  """`cross_entropy` for labels; the totals include macro F1.

  A target that is UNKNOWN, a label never seen in training, counts as an error,
  in a class of its own. The loss leaves it out, because it would be infinite.

  Args:
    logits_BNC: of the C labels; the reserved ids have none.
    targets_BN: ids of labels.
    weights_BN: of the targets.
    smoothing: as in `cross_entropy`.
  """
  label_BN = jnp.maximum(targets_BN - (UNKNOWN + 1), 0)
  known_BN = jnp.where(targets_BN > UNKNOWN, weights_BN, 0)
  loss, totals = cross_entropy(logits_BNC, label_BN, known_BN, smoothing)
  V = logits_BNC.shape[-1] + UNKNOWN + 1
  return loss, totals | hits(targets_BN, best_ids(logits_BNC), weights_BN, V)


def hits(
  targets_BN: jax.Array, best_BN: jax.Array, weights_BN: jax.Array, V: int
) -> Totals:
  """The accuracy and the macro F1 of ids below V."""
  true_BNV = jax.nn.one_hot(targets_BN, V)
  best_BNV = jax.nn.one_hot(best_BN, V)
  terms_3BNV = jnp.stack([true_BNV * best_BNV, true_BNV, best_BNV])
  hits_V, true_V, best_V = jnp.sum(
    terms_3BNV * weights_BN[None, ..., None], axis=(1, 2)
  )
  return {
    "accuracy": (jnp.sum(hits_V), jnp.sum(true_V)),
    "macro_f1": (2 * hits_V, true_V + best_V),
  }


def zero_sums(totals: Totals) -> Totals:
  """Sums that are zero, for `add_totals`; `totals` has their shapes."""
  return jax.tree.map(lambda x: jnp.zeros((2, *x.shape)), totals)


def add_totals(sums: Totals, totals: Totals) -> Totals:
  """Adds a batch's totals to running sums.

  A sum is [2, ...]: the value, and its rounding error, which the next addition
  corrects (Kahan 1965). A plain float32 sum is wrong by one per cent after a
  billion symbols.
  """

  def one(sum_2, value):
    value = value - sum_2[1]
    new = sum_2[0] + value
    return jnp.stack([new, (new - sum_2[0]) - value])

  return jax.tree.map(one, sums, totals)


def means(sums: Totals, in_bits: bool = True) -> dict[str, float]:
  """Divides totals by weights; a loss in nats also gives bits and perplexity.

  A metric with several classes is the mean over the classes that have weight.
  Without any weight a metric is 0, but the loss is NaN.

  Args:
    sums: as `add_totals` returns them.
    in_bits: `Experiment.in_bits`, whether the loss is in nats per symbol.
  """
  values = {}
  for name, (total, weight) in jax.device_get(sums).items():
    total, weight = np.atleast_1d(total[0], weight[0])
    weighted = weight != 0
    ratios = np.divide(total[weighted], weight[weighted], dtype=np.float64)
    empty = math.nan if name == "loss" else 0.0
    values[name] = float(ratios.mean()) if len(ratios) else empty
  if in_bits and "loss" in values:
    values["bits_per_symbol"] = values["loss"] / math.log(2)
    # exp(710) overflows a float; only a diverged model has such a loss.
    values["perplexity"] = math.exp(min(values["loss"], 700.0))
  return values
