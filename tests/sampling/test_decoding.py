"""Symbols chosen from logits, penalties, and where texts end."""

import functools
import itertools
import random

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.sampling import decoding
from seqrnn.sampling.decoding import ending
from tests.models.test_layers import chances, nade_logits
from tests.stablehlo import absent

V = 9
LETTERS = Vocabulary("char", ("a", "b", "c"))


choose = jax.jit(decoding.choose_symbol)


def test_frequencies_follow_the_softmax_at_a_temperature():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=V).astype(np.float32)
  logits_BV = np.tile(logits, (20000, 1))
  noise_BV = rng.gumbel(size=logits_BV.shape).astype(np.float32)
  for temperature in (0.5, 1.0, 2.0):
    drawn_B = choose(noise_BV, logits_BV, temperature)
    counts = np.bincount(drawn_B, minlength=V)
    expected = np.exp(logits / temperature)
    expected[[PAD, BEGIN, UNKNOWN]] = 0
    np.testing.assert_allclose(
      counts / counts.sum(), expected / expected.sum(), atol=0.015
    )


def likely(scaled_V, top_k, top_p, min_p=0.0):
  """Which symbols may be drawn, one by one."""
  kept_V = np.array([np.sum(scaled_V > s) < top_k for s in scaled_V])
  chances_V = np.where(kept_V, np.exp(scaled_V), 0)
  chances_V /= chances_V.sum()
  before_V = np.array([chances_V[scaled_V > s].sum() for s in scaled_V])
  kept_V &= (before_V < top_p) | (top_p >= 1)
  chances_V = np.where(kept_V, chances_V, 0)
  return kept_V & (chances_V >= min_p * chances_V.max() * (1 - 1e-6))


def test_every_platform_draws_from_the_same_symbols():
  rng = np.random.default_rng(5)
  # Some of them are equally likely.
  logits_BV = rng.integers(-9, 9, (50, 40)) * np.float32(0.37)
  noise_BV = rng.gumbel(size=logits_BV.shape).astype(np.float32)
  scaled_BV = (logits_BV / np.float32(0.7)).astype(np.float64)
  scaled_BV[:, [PAD, BEGIN, UNKNOWN]] = -np.inf
  for given in [
    *((40, 1.0, 1e-30), (7, 1.0, 1e-30), (40, 0.713, 1e-30), (1, 0.2, 1e-30)),
    *((40, 1.0, 0.05), (40, 0.9, 0.3), (9, 0.8, 1.0)),
  ]:
    inside_BV = np.array([likely(s_V, *given) for s_V in scaled_BV])
    noisy_BV = np.where(inside_BV, scaled_BV + noise_BV, -np.inf)
    for platform in ("cpu", "cuda"):
      with absent(platform):
        drawn_B = choose(noise_BV, logits_BV, 0.7, decoding.Limits(*given))
      np.testing.assert_array_equal(drawn_B, noisy_BV.argmax(axis=1))


def test_notes_are_drawn_independently_at_a_temperature():
  logits = np.random.default_rng(0).normal(size=7, scale=2)
  logits_BV = np.tile(logits.astype(np.float32), (20000, 1))
  noise_BV = np.random.default_rng(1).uniform(size=logits_BV.shape)
  noise_BV = noise_BV.astype(np.float32)
  notes_of = jax.jit(decoding.choose_notes)
  draw = lambda t: np.asarray(notes_of(noise_BV, logits_BV, t))
  for temperature in (0.5, 1.0, 2.0):
    notes = draw(temperature)
    expected = 1 / (1 + np.exp(-logits / temperature))
    np.testing.assert_allclose(notes.mean(0), expected, atol=0.015)
    covariance = np.cov(notes.T) - np.diag(expected * (1 - expected))
    assert np.abs(covariance).max() < 0.015
  assert (draw(0.0) == (logits > 0)).all()


def test_chords_are_drawn_with_their_probabilities():
  rng = np.random.default_rng(3)
  draw32 = lambda *shape: rng.normal(size=shape, scale=2).astype(np.float32)
  params = {"note_kernel": draw32(3, 4), "output_kernel": draw32(3, 4)}
  biases = draw32(7)
  noise_BO = rng.random((20000, 7), np.float32)
  draw = jax.jit(decoding.choose_chord)
  chords = np.array([*itertools.product((0, 1), repeat=3)])
  logits = np.array([nade_logits(params, biases, chord) for chord in chords])
  for temperature in (0.5, 1.0, 0.0):
    drawn = draw(noise_BO, np.tile(biases, (20000, 1)), temperature, params)
    counts = np.bincount(np.asarray(drawn) @ [4, 2, 1], minlength=8)
    scaled = logits / (temperature or 0.02)
    expected = chances(scaled, chords)
    np.testing.assert_allclose(counts / 20000, expected, atol=0.015)


PROCESSORS = functools.cache(lambda processor: [*map(jax.jit, processor)])


def run(applied, prime_BP, symbols_BT, logits_TBV):
  """The logits of each step, with the memory as the sampler hands it on."""
  processor, arrays, start = applied
  memory = start(prime_BP)
  apply, advance = PROCESSORS(processor)
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
  applied = decoding.repetition_penalty(1.7, V)
  found = run(applied, prime_BP, symbols_BT, logits_TBV)
  for t, found_BV in enumerate(found):
    expected_BV = logits_TBV[t].copy()
    for b, row in enumerate(expected_BV):
      seen = {*prime_BP[b].tolist(), *symbols_BT[b, :t].tolist()} - {PAD}
      for v in seen:
        row[v] = row[v] / 1.7 if row[v] > 0 else row[v] * 1.7
    np.testing.assert_allclose(found_BV, expected_BV, rtol=1e-6)
  assert (found[0] == logits_TBV[0]).any()


def test_no_n_gram_comes_twice():
  forbidden = yielded = 0
  for n in (1, 2, 4):
    prime_BP, symbols_BT, logits_TBV = random_run(n)
    symbols_BT = np.where(symbols_BT > 6, 4, symbols_BT)
    logits_TBV[:, :, END] = -np.inf
    # Another processor forbids a symbol, too.
    logits_TBV[:, :, 8][logits_TBV[:, :, 8] > 0] = -np.inf
    applied = decoding.no_repeat(n, symbols_BT.shape[1])
    found = run(applied, prime_BP, symbols_BT, logits_TBV)
    for t, b in np.ndindex(len(found), len(prime_BP)):
      row = logits_TBV[t, b]
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
      np.testing.assert_array_equal(found[t][b], expected)
  assert forbidden and yielded


def stopped(text, stops, begin):
  """Character by character: the text, and the place after the stop text."""
  for end in range(begin + 1, len(text) + 1):
    for stop in sorted(stops, key=len, reverse=True):
      if text[begin:end].endswith(stop):
        return text[: end - len(stop)], end
  return text, None


def test_a_text_ends_before_the_first_complete_stop_text():
  rng = random.Random(0)
  for _ in range(200):
    prime = "".join(rng.choices("abc", k=rng.randint(1, 3)))
    drawn = "".join(rng.choices("abc", k=rng.randint(1, 12)))
    stops = [
      "".join(rng.choices("abc", k=rng.randint(1, 4)))
      for _ in range(rng.randint(0, 3))
    ]
    ids_P, drawn_T = LETTERS.encode(prime), LETTERS.encode(drawn)
    ended = rng.random() < 0.5
    if ended:
      drawn_T = np.append(drawn_T, [END, PAD]).astype(np.int32)
    text, end = stopped(prime + drawn, stops, len(prime))
    expected = text, "end" if ended else "length"
    if end is not None:
      expected = text, "stop"
    assert ending(LETTERS, ids_P, drawn_T, stops) == expected


def test_a_character_of_several_bytes_is_read_whole():
  encoded = "aé€b".encode()
  symbols = Vocabulary("byte", tuple(sorted({chr(b) for b in encoded})))
  ids_T = symbols.encode([chr(b) for b in encoded])
  for size in (1, 2, 3, 4):  # The prime may end within a character.
    parts = ids_T[:size], ids_T[size:]
    assert ending(symbols, *parts, ["b"]) == ("aé€", "stop")
    assert ending(symbols, *parts, ["€"]) == ("aé", "stop")
