"""Filled gaps, against the enumeration of all fillings."""

import itertools
from unittest.mock import patch

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, softmax

from seqrnn import experiments
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN
from seqrnn.sampling import infill
from tests.conftest import message_of, tiny, untrained

LEFT, RIGHT = "ab", "ca"


def made(folder, fields=None, scale=0.4):
  """A run on texts in four letters, which are far from equally likely."""
  (folder / "text").write_text("abcd" * 100)
  fields = {"data.path": str(folder / "text"), **(fields or {})}
  return untrained(folder, fields, scale)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
  return made(tmp_path_factory.mktemp("forward"))


@pytest.fixture(scope="module")
def gap_model(tmp_path_factory):
  return made(tmp_path_factory.mktemp("gap"), {"task": "gap_model"}, 0.8)


def asked(model, text, **settings):
  config = model.config.copy_and_resolve_references()
  config.predict.update({"text": text, **settings})
  return infill.parse_gaps(model.experiment, config), config


def filled(model, text, candidates=512, sweeps=10, seed=0, **settings):
  (question, _), config = asked(model, text, **settings)
  config.seed = seed
  with patch.multiple(infill, _CANDIDATES=candidates, _SWEEPS=sweeps):
    return infill.fill_gaps(model.experiment, model.params, question, config)


def log_p(model, ids_NT):
  """The log p of each symbol at each position, by the whole model."""
  batch = {"inputs": ids_NT, "reset": np.ones(len(ids_NT), bool)}
  _, logits_NTV = jax.jit(model.experiment.predict)(model.params, (), batch)
  return log_softmax(np.asarray(logits_NTV, np.float64), axis=-1)


def taken(log_p_NTV, ids_NT):
  return np.take_along_axis(log_p_NTV, ids_NT[..., None], -1)[..., 0]


def rows(model, texts, last=()):
  """The ids of texts, after BEGIN."""
  encode = model.experiment.vocabularies["symbols"].encode
  return np.stack([[BEGIN, *encode(text), *last] for text in texts])


def words(length):
  return ["".join(some) for some in itertools.product("abcd", repeat=length)]


def exact(model, texts):
  """The log p of texts by a language model."""
  ids_NT = rows(model, texts)
  return taken(log_p(model, ids_NT)[:, :-1], ids_NT[:, 1:]).sum(1)


def merged(counts, means):
  """Counts and their means, of which those below 5 are added."""
  few = np.array(means) < 5
  merge = lambda x: [*np.array(x)[~few], np.array(x)[few].sum()]
  return (merge(counts), merge(means)) if few.any() else (counts, means)


def test_the_best_fillings_of_a_language_model(language_model):
  scores = exact(language_model, [f"ab{one}ca" for one in words(5)])
  chances = dict(zip(words(5), softmax(scores), strict=True))
  scores = dict(zip(words(5), scores, strict=True))
  fillings = filled(language_model, "ab_{5}ca", top_k=10_000)
  every = [one.score for one in fillings]
  assert every == sorted(every, reverse=True)
  for one in fillings:
    [gap] = one.gaps
    assert one.text == f"ab{gap}ca"
    assert one.score == pytest.approx(scores[gap], abs=1e-4)
    assert one.probability == pytest.approx(chances[gap], rel=0.2)
  assert fillings[0].gaps == [max(scores, key=scores.__getitem__)]
  # The estimate accounts for the fillings that were not drawn.
  assert sum(one.probability for one in fillings) < 0.8


def test_several_gaps_of_a_language_model(language_model):
  pairs = [*itertools.product(words(2), words(1))]
  scores = exact(language_model, [f"{a}b{b}d" for a, b in pairs])
  chances = dict(zip(pairs, softmax(scores), strict=True))
  known = dict(zip(pairs, scores, strict=True))
  fillings = filled(language_model, "_{2}b_{1}d", top_k=10_000)
  for one in fillings:
    first, second = one.gaps
    assert one.text == f"{first}b{second}d"
    assert one.score == pytest.approx(known[first, second], abs=1e-4)
    assert one.probability == pytest.approx(
      chances[first, second], rel=0.4, abs=0.02
    )
  assert len(fillings) == len({tuple(one.gaps) for one in fillings})
  again = filled(language_model, "_{2}b_{1}d", top_k=10_000)
  assert again == fillings
  other = filled(language_model, "_{2}b_{1}d", seed=1)
  assert other != fillings[:5]
  # Another mark: no text of the corpus has the four characters of `_{2}`.
  [one] = filled(language_model, "a_{2}?{2}c", gap="?", top_k=1)
  assert one.text[:5] == "a" + 4 * "\ufffd" and len(one.gaps[0]) == 2


def test_the_pseudo_log_likelihood_is_that_of_the_model(tmp_path):
  fields = {"model.merge": "sum", "data.boundaries": False}
  model = made(tmp_path, {"task": "gap_model", **fields})
  fillings = filled(model, "ab_{2}\u00e9ca_", candidates=8, sweeps=2)
  scores = [one.score for one in fillings]
  assert scores == sorted(scores, reverse=True)
  texts = [one.text.replace("\ufffd", "\u00e9") for one in fillings]
  ids_NT = rows(model, texts)[:, 1:]
  each_NT = np.where(ids_NT > UNKNOWN, taken(log_p(model, ids_NT), ids_NT), 0)
  np.testing.assert_allclose(scores, each_NT.sum(1), atol=1e-4)
  for one in fillings:
    assert one.probability is None
    first, second = one.gaps
    assert one.text == f"ab{first}\ufffdca{second}" and len(second) == 1


def stationary(model, n):
  """The distribution of fillings after many sweeps, by power iteration."""
  fillings = words(n)
  index = {filling: row for row, filling in enumerate(fillings)}
  texts = [LEFT + filling + RIGHT for filling in fillings]
  log_p_NTV = log_p(model, rows(model, texts, last=[END]))
  symbols = model.experiment.vocabularies["symbols"].symbols
  sweep = np.eye(len(fillings))
  for k in range(n):
    chances_NV = softmax(
      log_p_NTV[:, 1 + len(LEFT) + k, UNKNOWN + 1 :], axis=-1
    )
    step = np.zeros_like(sweep)
    for row, filling in enumerate(fillings):
      for symbol, chance in zip(symbols, chances_NV[row], strict=True):
        other = filling[:k] + symbol + filling[k + 1 :]
        if other in index:
          step[row, index[other]] = chance
    step /= step.sum(1, keepdims=True)
    sweep = sweep @ step
  chances = np.full(len(fillings), 1 / len(fillings))
  for _ in range(100):
    chances = chances @ sweep
  return dict(zip(fillings, chances, strict=True))


def test_sweeps_tend_to_the_stationary_distribution(gap_model):
  expected = stationary(gap_model, 3)
  (question, _), _ = asked(gap_model, f"{LEFT}_{{3}}{RIGHT}")
  fixed_NT = np.tile(question.ids_T, (2000, 1))
  rows, rng = infill.Reader(*gap_model[2:4]), np.random.default_rng(0)
  *_, last_NT = infill.gibbs(rows, fixed_NT, 10, rng)
  known_NT = fixed_NT != infill.OPEN
  np.testing.assert_array_equal(last_NT[known_NT], fixed_NT[known_NT])
  text = gap_model.experiment.vocabularies["symbols"].text
  drawn = np.array([text(ids_T[3:6]) for ids_T in last_NT])
  counts = [int((drawn == filling).sum()) for filling in expected]
  means = 2000 * np.array([*expected.values()])
  assert sum(counts) == 2000 and np.ptp(means) > 50
  assert stats.chisquare(*merged(counts, means)).pvalue > 0.01


def test_gaps_that_cannot_be_filled_are_refused(language_model):
  config = language_model.config.copy_and_resolve_references()
  config.data.boundaries = False
  bare = language_model._replace(config=config)
  experiment = language_model.experiment._replace(decoder=None)
  silent = language_model._replace(experiment=experiment)
  for text, model, message in (
    ("a_{3,20}", language_model, "must have gaps, as _{5}"),
    ("a_{501}b_{500}", language_model, "gaps, as _{5}, of at most 1,000"),
    ("a_{2}", silent, "cannot fill gaps; if _{ is a part of"),
    ("_{2}a", bare, "needs a symbol before a gap"),
  ):
    assert message in message_of(filled, model, text)


def test_a_mark_without_a_length_is_a_word(tmp_path):
  (tmp_path / "f").write_text("a b c _d\n" * 50)
  fields = {"task": "gap_model", "data.unit": "word"}
  config = tiny(tmp_path, {"data.path": str(tmp_path / "f"), **fields})
  experiment = experiments.build(config, None)
  for punctuation, text, count in (
    (False, "a _ c _d", 1),
    (False, "a _, _{2}", 1),
    (True, "a _, b _", 2),
    (False, "a _d", 0),
  ):
    config.data.punctuation, config.predict.text = punctuation, text
    assert infill.is_asked(experiment, config) == bool(count)
    if count:
      assert len(infill.parse_gaps(experiment, config)[0].gaps) == count
