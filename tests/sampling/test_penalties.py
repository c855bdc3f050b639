"""Penalties and forbidden repeats, against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from seqrnn.sampling import penalties

V = 9


def run(applied, prime_BP, symbols_BT, logits_TBV):
  """The logits of each step, with the memory as the sampler hands it on."""
  processor, arrays, start = applied
  memory = jax.tree.map(jnp.asarray, start(prime_BP))
  apply, advance = map(jax.jit, processor)
  found = []
  for t, symbol_B in enumerate(symbols_BT.T):
    found.append(np.asarray(apply(arrays, memory, logits_TBV[t], t)))
    memory = advance(arrays, memory, symbol_B, t)
  return found


def random_run(seed, B=5, P=6, T=30):
  rng = np.random.default_rng(seed)
  prime_BP = rng.integers(4, V, (B, P), np.int32)
  prime_BP[0, :4] = PAD  # Shorter primes are padded at the start.
  prime_BP[1, 0] = BEGIN
  symbols_BT = rng.integers(4, V, (B, T), np.int32)
  return prime_BP, symbols_BT, rng.normal(size=(T, B, V)).astype(np.float32)


def test_a_penalty_divides_and_multiplies_the_logits_of_seen_symbols():
  prime_BP, symbols_BT, logits_TBV = random_run(0, P=2, T=8)
  applied = penalties.repetition_penalty(1.7, V)
  found = run(applied, prime_BP, symbols_BT, logits_TBV)
  for t, found_BV in enumerate(found):
    expected_BV = logits_TBV[t].copy()
    for b, row in enumerate(expected_BV):
      seen = {*prime_BP[b].tolist(), *symbols_BT[b, :t].tolist()} - {PAD}
      for v in seen:
        row[v] = row[v] / 1.7 if row[v] > 0 else row[v] * 1.7
    np.testing.assert_allclose(found_BV, expected_BV, rtol=1e-6)
  assert (found[0] == logits_TBV[0]).any()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_no_n_gram_comes_twice(n):
  prime_BP, symbols_BT, logits_TBV = random_run(n)
  symbols_BT = np.where(symbols_BT > 6, 4, symbols_BT)
  logits_TBV[:, :, END] = -np.inf
  logits_TBV[:, :, 8] = np.where(  # Another processor forbids a symbol, too.
    logits_TBV[:, :, 8] > 0, -np.inf, logits_TBV[:, :, 8]
  )
  applied = penalties.no_repeat(n, symbols_BT.shape[1])
  found = run(applied, prime_BP, symbols_BT, logits_TBV)
  forbidden = yielded = 0
  for t, found_BV in enumerate(found):
    for b, row in enumerate(logits_TBV[t]):
      text = [s for s in [*prime_BP[b], *symbols_BT[b, :t]] if s != PAD]
      grams = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
      last = text[len(text) - n + 1 :]
      again = [v for v in range(V) if (*last, v) in grams]
      left = np.delete(row, [PAD, BEGIN, UNKNOWN, *again])
      if not np.isfinite(left).any():
        yielded, again = yielded + 1, []
      expected = row.copy()
      expected[again] = -np.inf
      forbidden += len(again)
      np.testing.assert_array_equal(found_BV[b], expected)
  assert forbidden and (yielded or n > 1)


def test_the_end_comes_after_the_minimum_length():
  _, symbols_BT, logits_TBV = random_run(0)
  found = run(penalties.min_length(3), symbols_BT, symbols_BT, logits_TBV)
  for t, found_BV in enumerate(found):
    expected_BV = logits_TBV[t].copy()
    if t < 3:
      expected_BV[:, END] = -np.inf
    np.testing.assert_array_equal(found_BV, expected_BV)
