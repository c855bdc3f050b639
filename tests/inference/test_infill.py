"""Filled gaps, against the enumeration of all fillings."""

import itertools
import re

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, softmax

import experiments
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.inference import infill, infill_question
from seqrnn.inference.infill_form import form
from seqrnn.inference.infill_rows import OPEN, given
from tests.conftest import tiny

LEFT, RIGHT = "ab", "ca"
PATTERN = "[ab]*c[cd]*|d.d"


def made(folder, fields=None, scale=2):
  """A config of texts in four letters, its experiment, random parameters."""
  (folder / "text").write_text("abcd" * 100)
  fields = {"data.path": str(folder / "text"), **(fields or {})}
  config = tiny(folder, fields)
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  # Far from uniform, so that a wrong distribution is seen.
  return config, experiment, jax.tree.map(lambda x: scale * x, params)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
  return made(tmp_path_factory.mktemp("forward"))


@pytest.fixture(scope="module")
def gap_model(tmp_path_factory):
  return made(tmp_path_factory.mktemp("gap"), {"task": "gap_model"}, 4)


def found(model, text, **settings):
  config, experiment, params = model
  config = config.copy_and_resolve_references()
  config.predict.update({"text": text, **settings})
  question, _ = infill_question.parse(experiment, config)
  return infill.fill(experiment, params, question, config)


def log_p(model, ids_NT):
  """The log p of each symbol at each position, by the whole model."""
  _, experiment, params = model
  batch = {"inputs": ids_NT, "reset": np.ones(len(ids_NT), bool)}
  _, logits_NTV = jax.jit(experiment.predict)(params, (), batch)
  return log_softmax(np.asarray(logits_NTV, np.float64), axis=-1)


def taken(log_p_NTV, ids_NT):
  return np.take_along_axis(log_p_NTV, ids_NT[..., None], -1)[..., 0]


def rows(model, texts, last=()):
  """The ids of texts, after BEGIN."""
  encode = model[1].vocabularies["symbols"].encode
  return np.stack([[BEGIN, *encode(text), *last] for text in texts])


def matching(pattern, fillings):
  """Those that match a pattern."""
  return {
    filling: value
    for filling, value in fillings.items()
    if re.fullmatch(pattern or ".*", filling)
  }


def exact(model, lengths):
  """Fillings between LEFT and RIGHT -> log p(text), by enumeration."""
  scores = {}
  for n in lengths:
    fillings = ["".join(some) for some in itertools.product("abcd", repeat=n)]
    ids_NT = rows(model, [LEFT + filling + RIGHT for filling in fillings])
    each_NT = taken(log_p(model, ids_NT)[:, :-1], ids_NT[:, 1:])
    scores |= dict(zip(fillings, each_NT.sum(1), strict=True))
  return scores


def test_a_language_model_tries_all_fillings_where_they_are_few(language_model):
  scores = exact(language_model, [3])
  fillings = found(
    language_model, f"{LEFT}_{{3}}{RIGHT}", candidates=64, top_k=100
  )
  assert fillings.how == "exact: from all 64 fillings"
  assert {one.gaps[0] for one in fillings.found} == set(scores)
  chances = softmax(list(scores.values()))
  for filling, chance in zip(scores, chances, strict=True):
    [one] = [one for one in fillings.found if one.gaps == [filling]]
    assert one.score == pytest.approx(scores[filling], abs=1e-4)
    assert one.probability == pytest.approx(chance, rel=1e-4)
    assert one.text == LEFT + filling + RIGHT
  best = [one.score for one in fillings.found]
  assert best == sorted(best, reverse=True)
  # A gap of one symbol is always exact.
  [one, *_] = found(language_model, "ab_{1}ca", candidates=1, top_k=1).found
  single = exact(language_model, [1])
  assert one.gaps == [max(single, key=single.__getitem__)]
  assert one.probability == pytest.approx(max(softmax([*single.values()])))


@pytest.mark.parametrize("pattern", [None, PATTERN])
def test_drawn_fillings_have_the_probabilities_of_the_model(
  language_model, pattern
):
  config, experiment, params = language_model
  longest = 3 if pattern else 2
  scores = matching(pattern, exact(language_model, range(longest + 1)))
  config = config.copy_and_resolve_references()
  config.predict.text = f"{LEFT}_{{0,{longest}}}{RIGHT}"
  config.predict.pattern = pattern
  config.predict.candidates = 20_000
  question, _ = infill_question.parse(experiment, config)
  left_P, *rest = question.parts
  reader = infill.forward_reader(experiment, params, left_P, question.form)
  after = question._replace(parts=[left_P[:0], *rest])
  candidates = infill.drawn(reader, after, config)
  names = np.array(
    [
      experiment.vocabularies["symbols"].text(ids_T[:n])
      for ids_T, [n] in zip(
        candidates.ids_NT, candidates.lengths_NK, strict=True
      )
    ]
  )
  assert set(names) == set(scores)
  chances = softmax(candidates.weight_N)
  drawn = np.random.default_rng(0).choice(names, 2000, p=chances)
  expected = 2000 * softmax([*scores.values()])
  counts = [int((drawn == filling).sum()) for filling in scores]
  few = expected < 5
  assert 0 < sum(few) < len(few) - 3
  merge = lambda x: [*np.array(x)[~few], np.array(x)[few].sum()]
  assert stats.chisquare(merge(counts), merge(expected)).pvalue > 0.01
  estimated = dict(zip(names, np.exp(candidates.log_p_N), strict=True))
  for filling, chance in zip(scores, expected / 2000, strict=True):
    assert estimated[filling] == pytest.approx(chance, rel=0.1)


def test_an_estimate_accounts_for_what_was_not_found(language_model):
  scores = exact(language_model, [4, 5])
  chances = softmax([*scores.values()])
  fillings = found(
    language_model, f"{LEFT}_{{4,5}}{RIGHT}", candidates=500, top_k=10_000
  )
  shares = {one.gaps[0]: one.probability for one in fillings.found}
  ratios = [
    shares[filling] / chance
    for filling, chance in zip(scores, chances, strict=True)
    if filling in shares
  ]
  assert sum(shares.values()) < 0.8
  np.testing.assert_allclose(ratios, 1, rtol=0.2)


def test_fillings_of_several_gaps_have_their_probabilities(language_model):
  config, experiment, params = language_model
  config = config.copy_and_resolve_references()
  config.predict.text, config.predict.candidates = "a_{1,2}b_{0,1}d", 20_000
  question, _ = infill_question.parse(experiment, config)
  left_P, *rest = question.parts
  reader = infill.forward_reader(experiment, params, left_P, question.form)
  after = question._replace(parts=[left_P[:0], *rest])
  _, ids_NT, lengths_NK = after.every()
  log_p_N, _ = reader.log_p(given(ids_NT), ids_NT)
  keys = [tuple(row) for row in np.column_stack([ids_NT, lengths_NK]).tolist()]
  expected = dict(zip(keys, softmax(log_p_N), strict=True))
  candidates = infill.drawn(reader, after, config)
  rows_NT = np.column_stack([candidates.ids_NT, candidates.lengths_NK])
  shares = dict.fromkeys(keys, 0.0)
  weights = softmax(candidates.weight_N)
  for key, weight, log_p in zip(
    map(tuple, rows_NT.tolist()), weights, candidates.log_p_N, strict=True
  ):
    shares[key] += weight
    assert np.exp(log_p) == pytest.approx(expected[key], rel=0.1)
  assert shares.keys() == expected.keys()
  for key, chance in expected.items():
    assert shares[key] == pytest.approx(chance, rel=0.25, abs=2e-3), key


def test_several_gaps_of_a_language_model(language_model):
  fillings = found(language_model, "_{2}b_{1,2}d", candidates=300, top_k=10_000)
  assert fillings.how.startswith("approximate: from 300 fillings that the")
  everything = [
    (first, second)
    for n in (1, 2)
    for first in map("".join, itertools.product("abcd", repeat=2))
    for second in map("".join, itertools.product("abcd", repeat=n))
  ]
  for one in fillings.found:
    first, second = one.gaps
    assert (first, second) in everything
    assert one.text == f"{first}b{second}d"
    ids_1T = rows(language_model, [one.text])
    whole = taken(log_p(language_model, ids_1T)[:, :-1], ids_1T[:, 1:])
    assert one.score == pytest.approx(whole.sum(), abs=1e-4)
    assert one.probability is not None and 0 <= one.probability <= 1
  assert len(fillings.found) == len({tuple(one.gaps) for one in fillings.found})
  again = found(language_model, "_{2}b_{1,2}d", candidates=300, top_k=10_000)
  assert again == fillings
  other = found(language_model, "_{2}b_{1,2}d", candidates=300, seed=1)
  assert other.found != fillings.found[:5]


@pytest.mark.parametrize(
  "fields",
  [
    {},
    {
      "model.cell": "gru",
      "model.layers": 2,
      "model.embedding_size": 6,
      "model.merge": "sum",
      "model.heads": "all",
      "data.boundaries": False,
    },
  ],
)
def test_the_pseudo_log_likelihood_is_that_of_the_model(tmp_path, fields):
  model = made(tmp_path, {"task": "gap_model", **fields})
  fillings = found(model, "ab_{1,2}\u00e9ca_", candidates=8, sweeps=2)
  assert fillings.how.endswith(
    "drawn symbol by symbol from both sides (Gibbs sampling)"
  )
  for one in fillings.found:
    assert one.probability is None
    first, second = one.gaps
    assert one.text == f"ab{first}\ufffdca{second}" and len(second) == 1
    text = one.text.replace("\ufffd", "\u00e9")
    ids_1T = rows(model, [text], last=[END])
    if fields:
      ids_1T = ids_1T[:, 1:-1]
    each_1T = taken(log_p(model, ids_1T), ids_1T)[ids_1T > UNKNOWN]
    assert one.score == pytest.approx(each_1T.sum(), abs=1e-4)


def test_a_gap_model_fills_one_symbol_exactly(gap_model):
  [*fillings], how = found(gap_model, "ab_{1}ca", top_k=9)
  assert how == "exact: from all 4 fillings"
  ids_1T = rows(gap_model, ["abaca"], last=[END])
  chances = softmax(log_p(gap_model, ids_1T)[0, 3, UNKNOWN + 1 :])
  order = np.argsort(-chances)
  symbols = gap_model[1].vocabularies["symbols"].symbols
  assert [one.gaps for one in fillings] == [[symbols[n]] for n in order]
  np.testing.assert_allclose(
    [one.probability for one in fillings], chances[order], rtol=1e-4
  )


def stationary(model, n, pattern):
  """The distribution of fillings after many sweeps, by power iteration."""
  every = ["".join(some) for some in itertools.product("abcd", repeat=n)]
  fillings = [one for one in every if re.fullmatch(pattern or ".*", one)]
  index = {filling: row for row, filling in enumerate(fillings)}
  texts = [LEFT + filling + RIGHT for filling in fillings]
  log_p_NTV = log_p(model, rows(model, texts, last=[END]))
  symbols = model[1].vocabularies["symbols"].symbols
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


@pytest.mark.parametrize("pattern", [None, PATTERN])
def test_sweeps_tend_to_the_stationary_distribution(gap_model, pattern):
  config, experiment, params = gap_model
  expected = stationary(gap_model, 3, pattern)
  config = config.copy_and_resolve_references()
  config.predict.text = f"{LEFT}_{{3}}{RIGHT}"
  config.predict.pattern = pattern
  question, _ = infill_question.parse(experiment, config)
  layout = question.layout(np.full((2000, 1), 3))
  fixed_NT = layout.fixed_NT
  reader = infill.both_sides_reader(experiment, params, question.form)
  rng = np.random.default_rng(0)
  *_, last_NT = infill.gibbs(reader, layout, 10, rng)
  np.testing.assert_array_equal(
    last_NT[fixed_NT != OPEN], fixed_NT[fixed_NT != OPEN]
  )
  text = experiment.vocabularies["symbols"].text
  drawn = np.array([text(ids_T[3:6]) for ids_T in last_NT])
  counts = np.array([(drawn == filling).sum() for filling in expected])
  means = 2000 * np.array([*expected.values()])
  few = means < 5
  merge = lambda x: [*x[~few], x[few].sum()] if few.any() else x
  assert counts.sum() == 2000 and np.ptp(means) > 50
  assert stats.chisquare(merge(counts), merge(means)).pvalue > 0.01


@pytest.mark.parametrize(
  ("text", "settings", "message"),
  [
    ("a_{3,2}", {}, "{3,2} must be the length of a gap, as {5}, or a range"),
    ("a_{0}b", {}, "{0} must be the length of a gap"),
    ("a_{99999}b", {}, "its gaps may have more than"),
    ("a_{1,2,3}b", {}, "{1,2,3} must be"),
    ("a_{3,}b", {}, "{3,} must be"),
    ("a_{501}b_{500}", {}, "gaps may have more than 1,000 symbols together"),
    ("ab", {}, "has no gap; _{5} is one"),
    ("a_{2}", {"pattern": "a("}, "config.predict.pattern='a(': "),
    ("a_{2,3}", {"pattern": "a+b{4}"}, "matches no text of 2 to 3 symbols"),
    ("a_{1}", {"pattern": "ab"}, "matches no text of 1 symbol, as the gap"),
    ("ab{5}", {"gap": "ab{"}, "has no gap; ab{{5} is one"),
    (
      "a_{9}b",
      {"candidates": 10_000_000},
      "candidates=10000000: with 12 symbols of a text each, more than 16,777",
    ),
  ],
)
def test_what_cannot_be_filled_is_refused(
  language_model, text, settings, message
):
  with pytest.raises(UserError) as error:
    found(language_model, text, **settings)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_models_that_cannot_fill_are_refused(language_model):
  config, experiment, params = language_model
  with pytest.raises(UserError, match="cannot fill gaps; if _{ is a part of"):
    found((config, experiment._replace(decoder=None), params), "a_{2}")
  other = config.copy_and_resolve_references()
  other.data.boundaries = False
  with pytest.raises(UserError, match="needs a symbol before it"):
    found((other, experiment, params), "_{2}a")


def test_a_gap_is_filled_in_one_session(tmp_path):
  (tmp_path / "f").write_text("a b c\n" * 50)
  fields = {"data.path": str(tmp_path / "f"), "data.unit": "session"}
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  for text in ("a _{2}\nb c", "a b\n_{2}", "a\nb _{1}"):
    config.predict.text = text
    with pytest.raises(UserError, match="in one sequence, not in several"):
      infill_question.parse(experiment, config)
  config.predict.text = "a _{2} z b\n"
  question, unknown = infill_question.parse(experiment, config)
  symbols = experiment.vocabularies["symbols"]
  assert [symbols.text(part) for part in question.parts] == [
    "a",
    "<unknown> b",
  ]
  assert (question.gaps, unknown) == ([[2]], ["z"])


def test_a_gap_model_compares_all_fillings_where_they_are_few(gap_model):
  fillings = found(gap_model, "ab_{0,2}ca", candidates=21, top_k=30)
  assert fillings.how == "exact: from all 21 fillings"
  scores = {}
  for n in range(3):
    for some in map("".join, itertools.product("abcd", repeat=n)):
      ids_1T = rows(gap_model, [f"ab{some}ca"], last=[END])
      each_1T = taken(log_p(gap_model, ids_1T), ids_1T)[ids_1T > UNKNOWN]
      scores[some] = each_1T.sum()
  best = sorted(scores, key=lambda some: -scores[some])
  assert [one.gaps[0] for one in fillings.found] == best
  for one in fillings.found:
    assert one.score == pytest.approx(scores[one.gaps[0]], abs=1e-4)
    assert one.probability is None


def test_another_mark_leaves_the_usual_one_to_the_text(language_model):
  fillings = found(language_model, "a_{2}?{2}c", gap="?", top_k=1)
  # No text of the corpus has the four characters of `_{2}`.
  assert fillings.found[0].text[:5] == "a" + 4 * "\ufffd"
  assert len(fillings.found[0].gaps[0]) == 2


@pytest.mark.parametrize(
  ("vocabulary", "pattern"),
  [
    (Vocabulary("char", ("a", "b", "1")), r"a*(b1)?|1\w"),
    (Vocabulary("word", ("ab", "b", "\n", "1")), r"(ab ?)*(\n?1)?"),
    (Vocabulary("char", ("a", "b")), None),
  ],
)
def test_a_form_has_all_fillings_that_match(vocabulary, pattern):
  made = form(pattern, vocabulary, 4)
  ids = range(UNKNOWN + 1, len(vocabulary))
  for n in range(5):
    matches = [
      some
      for some in itertools.product(ids, repeat=n)
      if pattern is None or re.fullmatch(pattern, vocabulary.text(some))
    ]
    assert [*map(tuple, made.fillings(n).tolist())] == matches
    assert made.count([n]) == len(matches)
    assert made.count([0, n, 4]) >= len(matches)


def test_a_pattern_holds_for_each_gap(language_model, gap_model):
  pattern = "a[bd]*c|bb"
  for model in (language_model, gap_model):
    [*fillings], how = found(
      model, "a_{2,6}b_{2,3}c", pattern=pattern, candidates=30, sweeps=3
    )
    assert how.startswith("approximate")
    for one in fillings:
      assert all(re.fullmatch(pattern, gap) for gap in one.gaps), one
    assert len({len(gap) for one in fillings for gap in one.gaps}) > 1
  [*fillings], how = found(language_model, "ab_{1}", pattern="[bc]", top_k=9)
  assert sorted(one.gaps[0] for one in fillings) == ["b", "c"]
  [*others], how = found(gap_model, "ab_", pattern="[bc]", top_k=9)
  assert how == "exact: from all 2 fillings"
  for several in (fillings, others):
    assert sum(one.probability for one in several) == pytest.approx(1)
