"""Symbols drawn in the compiled loop, and their probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import END, PAD
from seqrnn.experiment import Decoder
from seqrnn.sampling import sampler


def counting(vocabulary_size):
  """A decoder that always continues with the next id, then ends."""

  def step(_, carry, symbol_B):
    following = jnp.where(symbol_B + 1 < vocabulary_size, symbol_B + 1, END)
    return carry + 1, 50.0 * jax.nn.one_hot(following, vocabulary_size)

  return Decoder(lambda B: jnp.zeros((B, 1)), step)


def test_streams_continue_their_primes_and_end_once(monkeypatch):
  monkeypatch.setattr(sampler, "_CHUNK", 64)
  generate = sampler.generator(counting(80), length=200)
  prime_BP = np.array([[4, 5, 6], [40, 41, 60]])
  chunks = list(generate({}, prime_BP, 0, 1.0))
  drawn = np.concatenate(chunks, axis=1)
  assert drawn[0].tolist()[: 80 - 7 + 1] == [*range(7, 80), END]
  assert drawn[1].tolist()[: 80 - 61 + 1] == [*range(61, 80), END]
  assert (drawn[0][74:] == PAD).all() and (drawn[1][20:] == PAD).all()
  assert drawn.shape[1] < 200  # All streams have ended: it stops early.


def test_the_length_is_kept_whatever_the_chunks(monkeypatch):
  def step(_, carry, symbol_B):
    return carry, jnp.zeros((symbol_B.shape[0], 9)).at[:, END].set(-1e9)

  decoder = Decoder(lambda B: jnp.zeros((B, 1)), step)
  monkeypatch.setattr(sampler, "_CHUNK", 64)
  texts = []
  for length in (1, 130):  # Of noise for 1 or 14 steps at once.
    monkeypatch.setattr(sampler, "_NOISE", length)
    generate = sampler.generator(decoder, length=length)
    chunks = list(generate({}, np.array([[4]]), seed := 3, 1.0))
    drawn = np.concatenate(chunks, axis=1)
    assert drawn.shape == (1, length)
    texts.append(drawn[0])
  for text in texts[:-1]:  # A longer text begins as a shorter one.
    np.testing.assert_array_equal(text, texts[-1][: len(text)])
  other = np.concatenate(
    list(generate({}, np.array([[4]]), seed + 1, 1.0)), axis=1
  )
  assert (other[0] != texts[-1]).any()


def test_the_start_of_shorter_primes_is_not_read():
  step = lambda _, carry_B, symbol_B: (10 * carry_B + symbol_B, carry_B)
  decoder = Decoder(lambda B: jnp.ones(B), step)
  prime_BP = np.array([[PAD] * 2 + [4, 5], [6, 7, 8, 9], [PAD] * 3 + [7]])
  carry_B = sampler.prime_carry(decoder, {}, prime_BP)
  np.testing.assert_array_equal(carry_B, [14, 1678, 1])
