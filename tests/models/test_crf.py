"""The CRF against sums and maxima over all sequences of tags."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.models import crf

B, T, C = 40, 5, 3
ROWS = 7  # For which a gradient is compiled.


@pytest.fixture(scope="module")
def case():
  """Scores, rows of 0 to 5 tags between gaps, and edges."""
  rng = np.random.default_rng(0)
  chain = crf.TagScores(*(rng.normal(size=s) for s in ((C, C), C, C)))
  mask = rng.random((B, T)) < 0.7
  mask[0], mask[1:4] = False, True
  edges = rng.random((B, 2)) < 0.6
  return chain, 2 * rng.normal(size=(B, T, C)), mask, edges


def paths(chain, logits_TC, mask_T, edges):
  """All sequences of tags at the positions of a row, and their scores."""
  places = np.flatnonzero(mask_T)
  every = np.array([*itertools.product(range(C), repeat=len(places))])
  scores = logits_TC[places, every].sum(1)
  scores += chain.transitions[every[:, :-1], every[:, 1:]].sum(1)
  scores += chain.start[every[:, 0]] if edges[0] else 0
  return every, scores + (chain.stop[every[:, -1]] if edges[1] else 0)


@pytest.mark.parametrize("forbidden", [False, True])
def test_sums_and_maxima_are_those_over_all_sequences(case, forbidden):
  chain, logits, mask, edges = case
  if forbidden:  # Tag 0 follows tag 1 alone, and never begins.
    A, start = chain.transitions.copy(), chain.start.copy()
    A[[0, 2], 0] = start[0] = -np.inf
    chain = chain._replace(transitions=A, start=start)
  chain = jax.tree.map(jnp.asarray, chain)
  log_z = jax.jit(crf.forward)(chain, logits, mask, edges)[1]
  log_p = jax.jit(crf.marginals)(chain, logits, mask, edges)
  best = jax.jit(crf.viterbi)(chain, logits, mask, edges)
  assert {int(row.sum()) for row in mask} == {0, 1, 2, 3, 4, 5}
  for b in np.flatnonzero(mask.any(1)):
    every, scores = paths(
      jax.tree.map(np.asarray, chain), logits[b], mask[b], edges[b]
    )
    scores = np.asarray(scores, np.float64)
    np.testing.assert_allclose(log_z[b], np.logaddexp.reduce(scores), rtol=1e-5)
    chances = np.exp(scores - np.logaddexp.reduce(scores))
    places = np.flatnonzero(mask[b])
    own_PNC = every[..., None] == np.arange(C)
    share_NC = (chances[:, None, None] * own_PNC).sum(0)
    np.testing.assert_allclose(np.exp(log_p[b, places]), share_NC, atol=1e-5)
    assert best[b, places].tolist() == every[scores.argmax()].tolist()
  assert log_z[0] == 0


def test_the_loss_and_its_gradient_are_those_over_all_sequences(case):
  chain, logits, mask, edges = case
  targets = np.random.default_rng(1).integers(-1, C, (B, T))
  known = targets >= 0
  assert (known[mask].mean() < 1) and (mask & ~known)[:ROWS].any()

  def brute(chain, logits):
    losses = [jnp.zeros(())]
    for b in range(1, ROWS):
      every, scores = paths(chain, logits[b], mask[b], edges[b])
      places = np.flatnonzero(mask[b])
      fits = (every == targets[b, places]) | ~known[b, places]
      true = jax.nn.logsumexp(scores[fits.all(1)])
      losses.append(jax.nn.logsumexp(scores) - true)
    return jnp.stack(losses)

  def fast(chain, logits):
    rows = logits, targets, mask, edges
    return crf.surprisal(chain, *(x[:ROWS] for x in rows))

  given = jax.tree.map(jnp.asarray, (chain, logits))
  np.testing.assert_allclose(fast(*given), brute(*given), rtol=1e-4, atol=1e-5)
  grads = [
    jax.jit(jax.grad(lambda *x, f=f: f(*x).sum(), (0, 1)))(*given)
    for f in (fast, brute)
  ]
  for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(b).max() > 0.1


def test_new_parameters_make_tags_independent():
  logits = jax.random.normal(jax.random.key(0), (4, T, C))
  every, edges = jnp.ones((4, T), bool), jnp.ones((4, 2), bool)
  chain = crf.TagScores(**crf.init(C))
  log_p = crf.marginals(chain, logits, every, edges)
  np.testing.assert_allclose(log_p, jax.nn.log_softmax(logits), atol=1e-5)
  assert (crf.viterbi(chain, logits, every, edges) == logits.argmax(-1)).all()
