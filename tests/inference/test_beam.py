"""Beam search, against exhaustive search."""

import itertools

import jax
import numpy as np
import pytest

import experiments
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from seqrnn.inference import beam, penalties
from seqrnn.inference.replay import log_probabilities
from tests.conftest import tiny
from tests.inference.test_replay import ALTERNATING, Applied

LENGTH = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A random model of five symbols that can be drawn, END among them."""
  folder = tmp_path_factory.mktemp("beam")
  for n in range(3):
    (folder / f"{n}.txt").write_text("abcd"[n:] * 30 + "abcd")
  config = tiny(folder, {"data.path": str(folder), "model.hidden_size": 4})
  experiment = experiments.build(config, None)
  assert len(experiment.vocabularies["symbols"]) == 8
  params = jax.jit(experiment.init)(jax.random.key(1))
  rng = np.random.default_rng(0)
  draw = lambda x: x + rng.normal(size=x.shape, scale=0.7).astype(x.dtype)
  return experiment.decoder, jax.tree.map(draw, params)


def every_text():
  """All texts of LENGTH symbols, or fewer with an end."""
  for n in range(LENGTH):
    for text in itertools.product(range(4, 8), repeat=n):
      yield [*text, END] + [PAD] * (LENGTH - n - 1)
  yield from map(list, itertools.product(range(4, 8), repeat=LENGTH))


def applied(n):
  alternating = Applied(
    ALTERNATING, np.int32(2), lambda prime_BP: prime_BP[:, -1] % 2
  )
  return [[], [alternating, penalties.repetition_penalty(1.5, 8)]][n]


@pytest.mark.parametrize("n", [0, 1])
def test_a_beam_of_full_width_is_an_exhaustive_search(model, n):
  decoder, params = model
  texts_NT = np.array([*every_text()], np.int32)
  prime_BP = np.array([[PAD, BEGIN, 5], [4, 4, 7]], np.int32)
  width = len(texts_NT)
  found_BWT, score_BW = beam.search(
    decoder, params, prime_BP, LENGTH, width, applied(n)
  )
  for b, prime_P in enumerate(prime_BP):
    _, log_p_NT = log_probabilities(
      decoder, params, np.tile(prime_P, (width, 1)), texts_NT, applied(n)
    )
    order_N = np.argsort(-log_p_NT.sum(1), kind="stable")
    expected_N = log_p_NT.sum(1)[order_N]
    there = np.isfinite(expected_N)
    assert (there.sum() < width) == bool(n)
    np.testing.assert_array_equal(np.isfinite(score_BW[b]), there)
    np.testing.assert_allclose(
      score_BW[b][there], expected_N[there], rtol=1e-4, atol=1e-5
    )
    distinct = {tuple(text) for text in found_BWT[b][there].tolist()}
    assert len(distinct) == there.sum()
    best = texts_NT[order_N[: there.sum()]].tolist()
    assert distinct == {tuple(text) for text in best}
    np.testing.assert_array_equal(found_BWT[b][0], best[0])


def test_a_narrow_beam_keeps_the_best_beginnings(model):
  """Against the same search, one beam after the other."""
  decoder, params = model
  prime_BP = np.array([[BEGIN]], np.int32)
  W, length = 3, 12
  found_BWT, score_BW = beam.search(decoder, params, prime_BP, length, W)
  step = jax.jit(decoder.step)
  beams: list = [((), 0.0)]
  for _ in range(length):
    candidates = []
    for text, score in beams:
      if text[-1:] == (END,):
        candidates.append((text, score))
        continue
      carry, symbols = decoder.start(1), [BEGIN, *text]
      for symbol in symbols:
        carry, logits_BV = step(params, carry, np.array([symbol]))
      log_p_V = np.asarray(jax.nn.log_softmax(logits_BV[0]))
      candidates += [
        ((*text, v), score + log_p_V[v])
        for v in range(8)
        if v not in (PAD, BEGIN, UNKNOWN)
      ]
    beams = sorted(candidates, key=lambda item: -item[1])[:W]
  for found_T, score, (text, expected) in zip(
    found_BWT[0], score_BW[0], beams, strict=True
  ):
    assert tuple(found_T[found_T != PAD].tolist()) == text
    assert score == pytest.approx(expected, rel=1e-4)
  assert any(END in text for text, _ in beams)
