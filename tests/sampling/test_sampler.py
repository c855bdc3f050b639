"""Symbols drawn in the compiled loop, and their probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from seqrnn import experiments
from seqrnn.data.vocabulary import END, PAD
from seqrnn.experiment import Decoder
from seqrnn.sampling import sampler
from seqrnn.sampling.decoding import Applied, Processor
from tests.conftest import tiny


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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  config = tiny(tmp_path_factory.mktemp("text"), {})
  experiment = experiments.build(config, None)
  return experiment, jax.jit(experiment.init)(jax.random.key(1))


def test_symbols_have_the_probabilities_of_the_model(model):
  experiment, params = model
  V = len(experiment.vocabularies["symbols"])
  ids_BT = np.random.default_rng(0).integers(4, V, (3, 9), np.int32)
  batch = {"inputs": ids_BT[:, :-1], "reset": np.ones(3, bool)}
  _, logits_BTV = jax.jit(experiment.predict)(params, (), batch)
  prime_BP, symbols_BT = ids_BT[:, :3], ids_BT[:, 3:].copy()
  symbols_BT[0, -2:] = PAD
  log_p_BT = sampler.log_probabilities(
    experiment.decoder, params, prime_BP, symbols_BT
  )
  true_BTV = log_softmax(np.asarray(logits_BTV), axis=-1)[:, 2:]
  true_BT = np.take_along_axis(true_BTV, symbols_BT[..., None], -1)[..., 0]
  expected_BT = np.where(symbols_BT == PAD, 0, true_BT)
  np.testing.assert_allclose(log_p_BT, expected_BT, rtol=1e-4, atol=1e-5)


def only_after(arrays, memory_B, logits_BV, t):
  """Allows ids that have another parity than the symbol before."""
  del t
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  allowed_BV = id_1V % arrays != memory_B[:, None]
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def remainder(arrays, memory_B, symbol_B, t):
  del memory_B, t
  return symbol_B % arrays


ALTERNATING = Processor(only_after, remainder)


def test_a_processor_binds_each_drawn_symbol(model, monkeypatch):
  experiment, params = model
  applied = Applied(
    ALTERNATING, np.int32(2), lambda prime_BP: prime_BP[:, -1] % 2
  )
  bias_V = np.array(params["head"]["bias"])
  bias_V[END] = -100
  params = params | {"head": params["head"] | {"bias": bias_V}}
  texts = []
  for chunk in (16, 256):  # Memories pass from chunk to chunk.
    monkeypatch.setattr(sampler, "_CHUNK", chunk)
    generate = sampler.generator(
      experiment.decoder, length=60, applied=[applied]
    )
    chunks = list(generate(params, np.full((3, 1), 5), 0, 1.0))
    texts.append(np.concatenate(chunks, axis=1))
  np.testing.assert_array_equal(*texts)
  drawn_BT = np.concatenate([np.full((3, 1), 5), texts[0]], axis=1)
  assert ((drawn_BT[:, 1:] + drawn_BT[:, :-1]) % 2 == 1).all()
  assert len(np.unique(drawn_BT)) > 5


def test_the_start_of_shorter_primes_is_not_read():
  step = lambda _, carry_B, symbol_B: (10 * carry_B + symbol_B, carry_B)
  decoder = Decoder(lambda B: jnp.ones(B), step)
  prime_BP = np.array([[PAD] * 2 + [4, 5], [6, 7, 8, 9], [PAD] * 3 + [7]])
  carry_B = sampler.prime_carry(decoder, {}, prime_BP)
  np.testing.assert_array_equal(carry_B, [14, 1678, 1])
