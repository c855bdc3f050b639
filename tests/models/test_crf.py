"""The CRF against sums and maxima over all sequences of tags."""

import itertools

import jax
import numpy as np
import pytest

from seqrnn.models import crf
from tests.models.test_cells import close
from tests.models.test_layers import check_gradients

B, T, C = 40, 5, 3
pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def case():
  """Scores, rows of 0 to 5 tags between gaps, and edges."""
  rng = np.random.default_rng(0)
  chain = crf.TagScores(*(rng.normal(size=s) for s in ((C, C), C, C)))
  mask = rng.random((B, T)) < 0.7
  mask[0], mask[1:4] = False, True
  assert {int(row.sum()) for row in mask} == {0, 1, 2, 3, 4, 5}
  edges = rng.random((B, 2)) < 0.6
  return chain, 2 * rng.normal(size=(B, T, C)), mask, edges


def paths(chain, logits_TC, mask_T, edges):
  """All sequences of tags at the positions of a row, and their scores."""
  places = np.flatnonzero(mask_T)
  every = np.array([*itertools.product(range(C), repeat=len(places))])
  scores = [
    logits_TC[places, every].sum(1),
    chain.transitions[every[:, :-1], every[:, 1:]].sum(1),
    np.where(edges[0], chain.start[every[:, 0]], 0),
    np.where(edges[1], chain.stop[every[:, -1]], 0),
  ]
  return every, sum(scores)


def test_sums_and_maxima_are_those_over_all_sequences(case):
  chain, logits, mask, edges = case
  # Tag 0 follows tag 1 alone, and never begins.
  A, start = chain.transitions.copy(), chain.start.copy()
  A[[0, 2], 0] = start[0] = -np.inf
  new = crf.TagScores(**jax.tree.map(np.float64, crf.init(C)))
  assert not any(leaf.any() for leaf in new)

  @jax.jit
  def run(*terms):
    return (crf.forward(*terms)[1], crf.marginals(*terms), crf.viterbi(*terms))

  for scored in (chain, crf.TagScores(A, start, chain.stop), new):
    terms = scored, logits, mask, edges
    log_z, log_p, best = map(np.asarray, run(*terms))
    assert log_z[0] == 0
    for b in np.flatnonzero(mask.any(1)):
      every, scores = paths(scored, logits[b], mask[b], edges[b])
      close(log_z[b], np.logaddexp.reduce(scores))
      chances = np.exp(scores - log_z[b])
      places = np.flatnonzero(mask[b])
      own_PNC = every[..., None] == np.arange(C)
      share_NC = (chances[:, None, None] * own_PNC).sum(0)
      close(np.exp(log_p[b, places]), share_NC)
      assert best[b, places].tolist() == every[scores.argmax()].tolist()


def test_the_loss_and_its_gradient_are_those_over_all_sequences(case):
  chain, logits, mask, edges = case
  rng = np.random.default_rng(1)
  targets, weights = rng.integers(-1, C, (B, T)), rng.uniform(0.5, 2, B)
  known = targets >= 0
  assert known[mask].mean() < 1

  def by_paths(chain, logits):
    total = 0
    for b in np.flatnonzero(mask.any(1)):
      every, scores = paths(chain, logits[b], mask[b], edges[b])
      places = np.flatnonzero(mask[b])
      fits = (every == targets[b, places]) | ~known[b, places]
      odds = np.exp(scores)
      ratio = odds.sum() / odds[fits.all(1)].sum()
      total += weights[b] * np.log(ratio)
    return total

  def loss(chain, logits):
    return (weights * crf.surprisal(chain, logits, targets, mask, edges)).sum()

  value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(chain, logits)
  close(float(value), by_paths(chain, logits))
  check_gradients(grads, lambda tree: by_paths(*tree), (chain, logits))
