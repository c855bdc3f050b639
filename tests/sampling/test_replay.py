"""Log-probabilities of given symbols, against the whole model."""

import jax
import jax.numpy as jnp
import numpy as np

import experiments
from seqrnn.data.vocabulary import END, PAD
from seqrnn.sampling import sampler
from seqrnn.sampling.processors import Applied, Processor
from seqrnn.sampling.replay import log_probabilities
from tests.conftest import tiny


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


def test_given_symbols_have_the_probabilities_of_the_model(tmp_path):
  config = tiny(tmp_path)
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  assert experiment.decoder is not None and experiment.predict is not None
  T, V = config.data.window, len(experiment.vocabularies["symbols"])
  ids_BT = np.random.default_rng(0).integers(4, V, (3, T + 1), np.int32)
  batch = {"inputs": ids_BT[:, :-1], "reset": np.ones(3, bool)}
  _, logits_BTV = jax.jit(experiment.predict)(params, (), batch)
  for P in (1, 3):
    prime_BP, symbols_BT = ids_BT[:, :P], ids_BT[:, P:].copy()
    symbols_BT[0, -2:] = PAD
    applied = Applied(
      ALTERNATING, np.int32(2), lambda prime_BP: prime_BP[:, -1] % 2
    )
    model_BT, after_BT = log_probabilities(
      experiment.decoder, params, prime_BP, symbols_BT, (applied,)
    )
    true_BTV = np.asarray(jax.nn.log_softmax(logits_BTV))[:, P - 1 :]
    parity_BTV = np.arange(V) % 2 != ids_BT[:, P - 1 : -1, None] % 2
    masked_BTV = np.where(parity_BTV, true_BTV, -np.inf)
    masked_BTV -= np.log(np.exp(masked_BTV).sum(-1, keepdims=True))
    for found_BT, all_BTV in ((model_BT, true_BTV), (after_BT, masked_BTV)):
      expected_BT = np.take_along_axis(all_BTV, symbols_BT[..., None], -1)[
        ..., 0
      ]
      expected_BT = np.where(symbols_BT == PAD, 0, expected_BT)
      np.testing.assert_allclose(found_BT, expected_BT, rtol=1e-4, atol=1e-5)
  assert np.isneginf(after_BT).any() and np.isfinite(after_BT).any()


def test_a_processor_binds_each_drawn_symbol(tmp_path, monkeypatch):
  config = tiny(tmp_path, {"data.boundaries": False})
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  assert experiment.decoder is not None
  applied = Applied(
    ALTERNATING, np.int32(2), lambda prime_BP: prime_BP[:, -1] % 2
  )
  params["head"]["bias"] = params["head"]["bias"].at[END].set(-100)
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
