"""Repeated calls from Python: programs are compiled once."""

import contextlib
import functools

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.sampling import sampler
from tests.conftest import tiny

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


def untrained(folder, fields=None):
  """A run that was not trained."""
  config = tiny(folder, fields)
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(0))
  return experiments.Run(folder, config, experiment, params, 0)


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
