"""Totals, their running sums and the figures made of them."""

import math
from functools import partial

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax

from seqrnn.models import losses
from seqrnn.models.losses import add_totals, means, zero_sums

B, N, V = 4, 5, 7


def arrays(seed):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(size=(B, N, V), scale=3).astype(np.float32),
    rng.integers(V, size=(B, N)),
    rng.choice([0, 1, 2.5], size=(B, N)).astype(np.float32),
  )


cross_entropy = jax.jit(losses.cross_entropy, static_argnums=3)
both = jax.jit(jax.value_and_grad(losses.cross_entropy, has_aux=True))


def test_cross_entropy_equals_its_definition():
  logits, targets, weights = arrays(0)
  logits[0, 0] = 3.0  # All are the highest.
  (loss, totals), gradient = both(logits, targets, weights)
  p = softmax(logits.astype(np.float64), axis=-1)
  true = np.take_along_axis(p, targets[..., None], -1)[..., 0]
  weight, total = weights.sum(), -(weights * np.log(true)).sum()
  hits = (weights * (logits.argmax(-1) == targets)).sum()
  assert 0 < hits < weight
  assert float(loss) == pytest.approx(total / weight, rel=1e-6)
  assert set(totals) == {"loss", "accuracy"}
  for name, expected in {"loss": total, "accuracy": hits}.items():
    assert float(totals[name][0]) == pytest.approx(expected, rel=1e-6)
    assert float(totals[name][1]) == pytest.approx(weight)
  # The gradient is the softmax less the target.
  expected = (p - np.eye(V)[targets]) * (weights / weight)[..., None]
  np.testing.assert_allclose(gradient, expected, atol=1e-7)
  # What weighs nothing changes nothing.
  other, other_targets, _ = arrays(2)
  nothing = weights == 0
  mixed = np.where(nothing[..., None], other, logits)
  mixed_targets = np.where(nothing, other_targets, targets)
  (again, _), _ = both(mixed, mixed_targets, weights)
  assert nothing.any() and again == loss
  (loss, _), gradient = both(logits, targets, 0 * weights)
  assert loss == 0 and not np.asarray(gradient).any()


def test_of_equal_logits_the_first_is_the_most_likely():
  logits, targets, _ = arrays(0)
  some = (0 * logits, logits.round(), np.minimum(logits, 1))
  weights = np.ones_like(targets, np.float32)
  for values in some:
    best = values.argmax(-1)
    assert (np.sort(values)[..., -1] == np.sort(values)[..., -2]).any()
    accuracy = pytest.approx((best == targets).mean())
    _, totals = cross_entropy(values, targets, weights)
    assert means(add_totals(zero_sums(totals), totals))["accuracy"] == accuracy
    _, totals = losses.label_cross_entropy(values, targets + 4, weights)
    hits, weight = totals["accuracy"]
    assert hits / weight == accuracy


def test_note_cross_entropy_equals_its_definition():
  logits, _, weights = arrays(7)
  notes = np.random.default_rng(8).integers(0, 2, logits.shape, np.uint8)
  loss, totals = jax.jit(losses.note_cross_entropy)(logits, notes, weights)
  p = expit(logits.astype(np.float64))
  each = -np.log(np.where(notes == 1, p, 1 - p))
  total = (each * weights[..., None]).sum()
  hits = ((notes == 1) & (p > 0.5)) * weights[..., None]
  either = ((notes == 1) | (p > 0.5)) * weights[..., None]
  assert float(loss) == pytest.approx(total / weights.sum(), rel=1e-6)
  expected = {
    "loss": (total, weights.sum()),
    "accuracy": (hits.sum(), either.sum()),
  }
  assert totals.keys() == expected.keys()
  for name, pair in expected.items():
    np.testing.assert_allclose(totals[name], pair, rtol=1e-6)


def test_smoothing_is_in_the_mean_alone():
  logits, targets, weights = arrays(8)
  plain, totals = cross_entropy(logits, targets, weights, 0.0)
  logs = np.log(softmax(logits.astype(np.float64), axis=-1))
  target = 0.9 * np.eye(V)[targets] + 0.1 / V
  loss, smoothed = cross_entropy(logits, targets, weights, 0.1)
  mean = (-(target * logs).sum(-1) * weights).sum() / weights.sum()
  assert float(loss) == pytest.approx(mean, rel=1e-5) != float(plain)
  same = partial(np.testing.assert_allclose, rtol=1e-6)
  jax.tree.map(same, smoothed, totals)


def test_a_large_sum_still_grows():
  """2^27 + 1 is no float32: a plain sum would stand still."""
  add, one = jax.jit(add_totals), (np.float32(1), np.float32(1))
  sums = {"loss": (np.array([2.0**27, 0], np.float32), np.zeros(2, np.float32))}
  for _ in range(100):
    sums = add(sums, {"loss": one})
  # The value and what the next addition will make good.
  (value, fault), (weight, _) = jax.device_get(sums["loss"])
  assert float(value) - float(fault) == 2**27 + 100
  assert abs(float(value) - (2**27 + 100)) <= 8
  assert float(weight) == 100


def test_finish():
  pair = lambda total, weight: (np.array([total, 0.0]), np.array([weight, 0]))
  figures = means({"loss": pair(6.0, 4.0), "accuracy": pair(1.0, 4.0)})
  assert figures == {
    "loss": 1.5,
    "accuracy": 0.25,
    "bits_per_symbol": pytest.approx(2.1640425613334453),
    "perplexity": pytest.approx(4.4816890703380645),
  }
  assert all(type(figure) is float for figure in figures.values())
  assert means({"loss": pair(3.0, 2.0)}, False) == {"loss": 1.5}
  empty = means({"loss": pair(0.0, 0.0)})
  assert all(math.isnan(figure) for figure in empty.values())
  huge = means({"loss": pair(5e4, 1.0)})
  assert huge["perplexity"] == pytest.approx(math.exp(700))


def f1(truth, guess, label):
  """2 TP / (2 TP + FP + FN), by its definition."""
  pairs = list(zip(truth, guess, strict=True))
  both = sum(t == g == label for t, g in pairs)
  wrong = sum((t == label) != (g == label) for t, g in pairs)
  return 2 * both / (2 * both + wrong)


def test_figures_of_labels():
  """Over several batches, with padding and labels never seen in training."""
  rng = np.random.default_rng(7)
  C, UNKNOWN, smoothing = 5, 3, 0.2
  sums, truth, guess, nll = None, [], [], []
  loss_of = jax.value_and_grad(losses.label_cross_entropy, has_aux=True)
  figures_of, add = (jax.jit(loss_of, static_argnums=3), jax.jit(add_totals))
  for _ in range(3):
    logits = rng.normal(size=(6, 4, C)).astype(np.float32)
    targets = rng.choice([UNKNOWN, 4, 5, 6, 7], (6, 4))  # 8 is only guessed.
    weights = rng.integers(0, 2, (6, 4)).astype(np.float32)
    targets[weights == 0] = 0
    (loss, totals), _ = figures_of(logits, targets, weights, smoothing)
    sums = add(zero_sums(totals) if sums is None else sums, totals)
    own, trained = [], []
    for place in np.argwhere(weights):
      scores = logits[tuple(place)].astype(np.float64)
      truth.append(targets[tuple(place)])
      guess.append(4 + scores.argmax())
      if truth[-1] != UNKNOWN:
        nll_C = np.log(np.exp(scores).sum()) - scores
        own.append(nll_C[truth[-1] - 4])
        smooth = (1 - smoothing) * own[-1] + smoothing * nll_C.mean()
        trained.append(smooth)
    assert float(loss) == pytest.approx(np.mean(trained), 1e-5)
    nll += own
  (loss, _), gradient = figures_of(logits, targets, 0 * weights, smoothing)
  assert loss == 0 and not np.asarray(gradient).any()
  figures = means(sums)
  assert figures["loss"] == pytest.approx(np.mean(nll), rel=1e-5)
  hits = [t == g for t, g in zip(truth, guess, strict=True)]
  assert figures["accuracy"] == pytest.approx(np.mean(hits), rel=1e-6)
  mean = np.mean([f1(truth, guess, c) for c in {*truth, *guess}])
  assert len({*truth, *guess}) == 6
  assert figures["macro_f1"] == pytest.approx(mean, rel=1e-6)
