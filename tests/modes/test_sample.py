"""Sampling: what is drawn, from what, and that chunks do not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from configs import base
from seqrnn.data import vocabulary
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Decoder
from seqrnn.modes.sample import write_texts
from seqrnn.sampling import choice, primes, sampler
from seqrnn.sampling import texts as drawing
from tests.conftest import tiny
from tests.stablehlo import mesh_of


def draws(logits_V, n=20000, **settings):
  logits_BV = jnp.tile(jnp.asarray(logits_V), (n, 1))
  temperature = settings.pop("temperature", 1.0)
  noise_BV = jax.random.gumbel(jax.random.key(0), logits_BV.shape)
  if not settings:
    drawn = choice.choose_symbol(noise_BV, logits_BV, temperature)
  else:
    settings = {"top_k": logits_BV.shape[-1], **settings}
    limits = choice.Limits(**settings)
    drawn = choice.choose_likely_symbol(
      noise_BV, logits_BV, temperature, limits
    )
  return np.asarray(drawn)


def test_frequencies_follow_the_softmax_at_a_temperature():
  logits = np.random.default_rng(0).normal(size=9)
  for temperature in (0.5, 1.0, 2.0):
    counts = np.bincount(draws(logits, temperature=temperature), minlength=9)
    expected = np.exp(logits / temperature)
    expected[[PAD, BEGIN, UNKNOWN]] = 0
    np.testing.assert_allclose(
      counts / counts.sum(), expected / expected.sum(), atol=0.015
    )


def test_temperature_zero_is_the_most_likely_symbol():
  logits = np.array([9.0, 9.0, 0.0, 9.0, 1.0, 3.0, 2.0])
  assert set(draws(logits, temperature=0.0)) == {5}


def test_top_k_and_top_p_leave_the_most_likely_symbols():
  logits = np.log(np.array([1e-9, 1e-9, 1e-9, 1e-9, 0.4, 0.3, 0.2, 0.1]))
  assert set(draws(logits, top_k=2)) == {4, 5}
  assert set(draws(logits, top_k=100)) == {4, 5, 6, 7}
  # The set must reach top_p: .4 + .3 is enough for .69, not for .71.
  assert set(draws(logits, top_p=0.69)) == {4, 5}
  assert set(draws(logits, top_p=0.71)) == {4, 5, 6}
  assert set(draws(logits, top_p=1e-6)) == {4}
  counts = np.bincount(draws(logits, top_p=0.69), minlength=8)
  assert counts[4] / counts.sum() == pytest.approx(4 / 7, abs=0.015)


def test_limits_that_leave_nothing_out_change_nothing():
  """Also where the sum of the probabilities is 1 before the last symbol."""
  logits = np.random.default_rng(0).normal(size=200, scale=8)
  all_symbols = draws(logits, n=500)
  assert (draws(logits, n=500, top_k=200, top_p=1.0) == all_symbols).all()
  noise_BV = jnp.zeros((1, 200)).at[0, int(logits[4:].argmin()) + 4].set(1e4)
  drawn = choice.choose_likely_symbol(
    noise_BV, jnp.asarray(logits)[None], 1.0, choice.Limits(200, 1.0, 1e-38)
  )
  assert int(drawn[0]) == int(noise_BV.argmax())


def test_top_p_is_of_what_top_k_leaves():
  logits = np.log(np.array([1e-9, 1e-9, 1e-9, 1e-9, 0.4, 0.3, 0.2, 0.1]))
  # Of 0.4 and 0.3 the first has 0.571 of the probability.
  assert set(draws(logits, top_k=2, top_p=0.57)) == {4}
  assert set(draws(logits, top_k=2, top_p=0.58)) == {4, 5}
  # As likely as the second: drawn, too.
  tied = np.log(np.array([1e-9, 1e-9, 1e-9, 1e-9, 0.4, 0.3, 0.3]))
  assert set(draws(tied, top_k=2)) == {4, 5, 6}


def likely(scaled_V, top_k, top_p, min_p=0.0):
  """Which symbols may be drawn, one by one."""
  kept_V = np.array([np.sum(scaled_V > s) < top_k for s in scaled_V])
  chances_V = np.where(kept_V, np.exp(scaled_V), 0)
  chances_V /= chances_V.sum()
  before_V = np.array([chances_V[scaled_V > s].sum() for s in scaled_V])
  kept_V &= (before_V < top_p) | (top_p >= 1)
  chances_V = np.where(kept_V, chances_V, 0)
  return kept_V & (chances_V >= min_p * chances_V.max() * (1 - 1e-6))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_every_platform_draws_from_the_same_symbols(platform):
  rng = np.random.default_rng(5)
  choose = jax.jit(choice.choose_likely_symbol)
  for given in [
    *((40, 1.0), (7, 1.0), (40, 0.713), (9, 0.431), (1, 0.2)),
    *((40, 1.0, 0.05), (40, 0.9, 0.3), (9, 0.8, 1.0), (40, 1.0, 1e-30)),
  ]:
    limits = choice.Limits(*given)
    # Some of them are equally likely.
    logits_BV = rng.integers(-9, 9, (50, 40)) * np.float32(0.37)
    noise_BV = rng.gumbel(size=logits_BV.shape).astype(np.float32)
    with jax.sharding.use_abstract_mesh(mesh_of(platform)):
      drawn_B = choose(noise_BV, logits_BV, 0.7, limits)
    scaled_BV = (logits_BV / np.float32(0.7)).astype(np.float64)
    scaled_BV[:, [PAD, BEGIN, UNKNOWN]] = -np.inf
    inside_BV = np.array([likely(s_V, *given) for s_V in scaled_BV])
    noisy_BV = np.where(inside_BV, scaled_BV + noise_BV, -np.inf)
    np.testing.assert_array_equal(drawn_B, noisy_BV.argmax(axis=1))


def test_min_p_is_a_share_of_the_largest_probability():
  logits = np.log(np.array([1e-9] * 4 + [0.35, 0.2, 0.2, 0.05, 0.2]))
  assert set(draws(logits, min_p=0.5)) == {4, 5, 6, 8}


def test_notes_are_drawn_independently_at_a_temperature():
  logits = np.random.default_rng(0).normal(size=7, scale=2)
  logits_BV = jnp.tile(jnp.asarray(logits), (20000, 1))
  noise_BV = jax.random.uniform(jax.random.key(0), logits_BV.shape)
  draw = lambda temperature: np.asarray(
    choice.choose_notes(noise_BV, logits_BV, temperature)
  )
  for temperature in (0.5, 1.0, 2.0):
    notes = draw(temperature)
    expected = 1 / (1 + np.exp(-logits / temperature))
    np.testing.assert_allclose(notes.mean(0), expected, atol=0.015)
    covariance = np.cov(notes.T) - np.diag(expected * (1 - expected))
    assert np.abs(covariance).max() < 0.015
  assert (draw(0.0) == (logits > 0)).all()


def counting(vocabulary_size):
  """A decoder that always continues with the next id, then ends."""

  def step(_, carry, symbol_B):
    following = jnp.where(symbol_B + 1 < vocabulary_size, symbol_B + 1, END)
    return carry + 1, 50.0 * jax.nn.one_hot(following, vocabulary_size)

  return Decoder(lambda B: jnp.zeros((B, 1)), step)


def test_streams_go_on_from_their_primes_and_end_for_good(monkeypatch):
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
  for length in (1, 63, 64, 65, 130):
    # Of noise for 1 to 14 steps at once.
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


@pytest.mark.parametrize("mapping", ["many_to_many", "many_to_one"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_decoder_equals_the_model_on_the_whole_text(
  tmp_path, mapping, bidirectional
):
  if bidirectional and mapping == "many_to_many":
    pytest.skip("refused: it would leak")
  config = tiny(
    tmp_path,
    {"data.mapping": mapping, "model.bidirectional": bidirectional},
  )
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  T, V = config.data.window, len(experiment.vocabularies["symbols"])
  ids = np.random.default_rng(0).integers(4, V, (3, 2 * T), np.int32)
  step = jax.jit(experiment.decoder.step)
  carry = experiment.decoder.start(3)
  predict = jax.jit(experiment.predict)
  for n in range(ids.shape[1]):
    carry, logits_BV = step(params, carry, ids[:, n])
    inputs, row = ids, n
    if mapping == "many_to_one":
      row = 0
      inputs = ids[:, max(0, n + 1 - T) : n + 1]
      inputs = np.pad(inputs, [(0, 0), (0, T - inputs.shape[1])])
    batch = {"inputs": inputs, "reset": np.ones(3, bool)}
    _, whole_BNV = predict(params, (), batch)
    np.testing.assert_allclose(logits_BV, whole_BNV[:, row], atol=2e-6)


def test_primes():
  symbols = Vocabulary("char", ("a", "b", "c"))
  begun, bare = (base.get_config().data for _ in range(2))
  bare.boundaries = False
  ids, unknown = primes.prime_ids(symbols, "abz", begun, 2, 0)
  assert ids.tolist() == [[BEGIN, 4, 5, UNKNOWN]] * 2
  assert unknown == ["z"]
  ids, unknown = primes.prime_ids(symbols, "ab", bare, 1, 0)
  assert ids.tolist() == [[4, 5]] and not unknown
  bare.lowercase = True
  ids, unknown = primes.prime_ids(symbols, "aB", bare, 1, 0)
  assert ids.tolist() == [[4, 5]] and not unknown
  with pytest.raises(
    UserError, match=r"^config\.sample\.prime='a\\nb': has 2 s"
  ):
    events = Vocabulary("session", ("a", "b"))
    primes.prime_ids(events, "a\nb", begun, 1, 0)
  ids, _ = primes.prime_ids(symbols, "", begun, 1, 0)
  assert ids.tolist() == [[BEGIN]]
  ids, _ = primes.prime_ids(symbols, "", bare, 200, 0)
  assert set(ids[:, 0]) == {4, 5, 6}


ONE = "ob done!\nA second line.\nThe third one.\n" * 9


@pytest.mark.parametrize(
  ("fields", "content", "begin"),
  [
    ({}, ONE, "\n"),
    ({"data.boundaries": False}, ONE, "\n"),
    ({"data.unit": "byte"}, ONE, "\n"),
    ({"data.unit": "word"}, ONE, "\n"),
    ({}, ONE.replace("\n", " "), " "),
    ({"data.unit": "word"}, ONE.replace("\n", " "), ""),
    ({"data.unit": "session"}, " ".join(ONE.split()), ""),
  ],
)
def test_a_model_of_one_document_begins_at_a_line(
  tmp_path, fields, content, begin
):
  (tmp_path / "one").write_text(content)
  fields = {"data.path": str(tmp_path / "one"), "sample.length": 9, **fields}
  config = tiny(tmp_path, {**fields, "sample.streams": 3})
  new = experiments.build(config, None)
  vocabulary.save(tmp_path / "vocabulary.json", new.vocabularies)
  (tmp_path / "one").unlink()  # Samples need no corpus.
  known = vocabulary.load(tmp_path / "vocabulary.json")
  experiment = experiments.build(config, known)
  symbols = experiment.vocabularies["symbols"]
  params = jax.jit(experiment.init)(jax.random.key(1))
  writing = drawing.begin(experiment, params, config)
  firsts = {symbols.names(row)[-1] for row in writing.rows}
  if begin:
    assert firsts == set(symbols.names(symbols.encode([begin])))
    assert [writing.shown(n).size for n in range(3)] == [0, 0, 0]
  else:  # Any symbol begins a word.
    assert firsts <= set(symbols.symbols) and len(firsts) > 1
    assert [writing.shown(n).size for n in range(3)] == [1, 1, 1]
  config.sample.prime = "The"
  primed = drawing.begin(experiment, params, config)
  assert symbols.text(primed.shown(0)) == "The"
  bare = not config.data.boundaries
  start = [] if bare else symbols.encode([begin]) if begin else [BEGIN]
  assert primed.rows[0].tolist() == [*start, *primed.shown(0)]


def test_a_model_of_many_documents_begins_as_they_do(tmp_path):
  experiment = experiments.build(config := tiny(tmp_path), None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  [row] = drawing.begin(experiment, params, config).rows
  assert row.tolist() == [BEGIN]


def test_several_temperatures_and_streams(tmp_path):
  config = tiny(
    tmp_path,
    {
      "sample.temperature": (0.0, 1.0),
      "sample.streams": 3,
      "sample.length": 70,
      "sample.prime": "ab",
    },
  )
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  shown = []
  writing = drawing.begin(experiment, params, config)
  texts = write_texts(writing, tmp_path, shown.append)
  assert len(texts) == 6
  assert all(text.startswith("ab") for text in texts)
  assert len(set(texts[:3])) == 1  # Greedy: the streams are alike.
  assert len(set(texts[3:])) == 3
  assert "temperature 0\n" in "".join(shown)
  assert all(text in "".join(shown) for text in texts)
  assert drawing.sample(experiment, params, config) == texts


def test_one_stream_is_shown_as_it_is_made(tmp_path, monkeypatch):
  monkeypatch.setattr(sampler, "_CHUNK", 64)
  config = tiny(tmp_path, {"sample.length": 150, "data.boundaries": False})
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  head_bias = np.zeros(len(experiment.vocabularies["symbols"]), np.float32)
  head_bias[END] = -100  # It never ends by itself.
  params["head"]["bias"] = head_bias
  shown = []
  writing = drawing.begin(experiment, params, config)
  texts = write_texts(writing, tmp_path, shown.append)
  assert "".join(shown) == texts[0] + "\n"
  # Without the line break after which it begins.
  assert len(texts[0]) == 150 and len(shown) == 4
  assert not (tmp_path / "samples.jsonl").exists()
