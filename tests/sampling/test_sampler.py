"""Symbols drawn in the compiled loop; programs are compiled once."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.data.vocabulary import END, PAD
from seqrnn.experiment import Decoder
from seqrnn.sampling import sampler
from tests.conftest import untrained

TEXT = "abcde abcd\nabc " * 12


@contextlib.contextmanager
def compilations():
  """A list with an item for each program that is compiled meanwhile."""
  found, on = [], True

  def note(event, duration, **_):
    if on and event == "/jax/core/compile/backend_compile_duration":
      found.append(duration)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    yield found
  finally:
    on = False


FIELDS = {
  "language model": {},
  "gap model": {"task": "gap_model"},
  "buckets": {"data.buckets": 4, "data.window": 100},
}
CALLS = ("buckets", "score"), ("gap model", "predict")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A function name -> a run with these fields, made once."""
  folder = tmp_path_factory.mktemp("runs")
  return functools.cache(lambda name: untrained(folder, FIELDS[name]))


@pytest.mark.parametrize(("name", "method"), CALLS)
def test_ten_lengths_compile_few_programs_and_no_more(runs, name, method):
  run = runs(name)
  texts = [TEXT[: 3 + 12 * n] for n in range(10)]
  with compilations() as first:
    found = [getattr(run, method)(text) for text in texts]
  with compilations() as second:
    again = [getattr(run, method)(text) for text in texts]
  assert 1 <= len(first) <= 3 and not second
  same = jax.tree.map(np.array_equal, found, again)
  assert all(jax.tree.leaves(same))


def test_settings_of_a_sample_compile_nothing(runs):
  run = runs("language model")
  run.sample("ab", length=20)
  with compilations() as found:
    for prime, settings in (
      ("abc", {"temperature": 0.3}),
      ("abcde" * 9, {"temperature": (0.0, 2.0)}),
      ("", {"seed": 2**32 - 1}),
      *(("ab", {"length": length}) for length in (1, 257, 600)),
    ):
      run.sample(prime, **{"length": 20, **settings})
  assert not found
  run.sample("ab", length=20, top_k=3)
  with compilations() as found:
    run.sample("ab", length=20, top_k=99, top_p=0.9)
  assert not found


def test_a_prime_of_any_length_is_read_to_its_end(runs, monkeypatch):
  """The padding behind it changes no drawn symbol."""
  run = runs("language model")
  for length in (1, 7):
    texts = []
    for room in (length, 64):
      monkeypatch.setattr(sampler, "_PRIME", room)
      texts += run.sample(TEXT[:length], length=30, temperature=1.0)
    assert len(set(texts)) == 1 and texts[0].startswith(TEXT[:length])


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
  carry_B = sampler.read_prime(decoder, {}, prime_BP)
  np.testing.assert_array_equal(carry_B, [14, 1678, 1])
