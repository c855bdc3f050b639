"""Dynamic evaluation: segments are scored before they are learned from."""

import functools
import json
from functools import partial

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.config import derived
from seqrnn.data.sources.corpora import from_text
from seqrnn.errors import UserError
from seqrnn.modes import evaluate
from seqrnn.run import load_run
from seqrnn.scoring import dynamic
from seqrnn.scoring.dynamic import STATIC, UpdateRule, segment_totals
from tests.conftest import random_params, tiny

RULE = UpdateRule(0.003, 0.02)
TEXT = "abcde abcd\nabc " * 6


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
  """The experiments of one stream and of several, and random parameters."""
  config = tiny(tmp_path_factory.mktemp("dynamic"), {"data.buckets": 2})
  one, many = (
    experiments.build(derived.streams(config, 6, rows), None) for rows in (1, 3)
  )
  return one, many, random_params(one, 0)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
  monkeypatch.setattr(dynamic, "_SEGMENTS", 4)


@functools.cache
def slope(loss):
  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def root_mean_squares(experiment, params, batches):
  """The mean squares of gradients, one batch after the other, in float64."""
  score = slope(experiment.loss)
  carry = experiment.carry(batches.batch_size)
  sums = jax.tree.map(np.zeros_like, jax.device_get(params))
  for batch in batches:
    (_, (carry, _)), found = score(params, carry, batch, None)
    sums = jax.tree.map(lambda a, g: a + np.square(g), sums, found)
  return jax.tree.map(lambda x: np.sqrt(x / len(batches)), sums)


def moved(rule, share, mean, p, g, first, s):
  """A parameter after a segment, by the rule as the paper has it."""
  step = rule.rate * share * np.asarray(g) / (s + 0.1 * mean)
  pull = rule.decay * np.minimum(s / mean, 1 / max(rule.decay, 1e-9))
  return np.asarray(p - step + pull * (first - p), np.float32)


def looped(experiment, params, scales, batches, rule):
  """The mean losses of segments read one after the other."""
  score, own = slope(experiment.loss), jax.device_get(params)
  leaves = jax.tree.leaves(scales)
  mean = sum(x.sum() for x in leaves) / sum(x.size for x in leaves)
  carry, found = experiment.carry(1), []
  for batch in batches:
    (loss, (carry, _)), slopes = score(own, carry, batch, None)
    found.append(float(loss))
    share = batch["weights"].sum() / batch["weights"].size
    step = partial(moved, rule, share, mean)
    own = jax.tree.map(step, own, slopes, params, scales)
  return np.array(found)


def test_segments_are_scored_as_in_a_loop(reads):
  one, many, params = reads
  trained = many.batches("train", 0)[:10]
  scales = root_mean_squares(many, params, trained)
  ones = jax.tree.map(np.ones_like, jax.device_get(params))
  _, squares = segment_totals(many, params, ones, trained, STATIC)
  same = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-7)
  jax.tree.map(same, squares, scales)
  batches = one.batches("validation", 0)[:11]
  static, _ = segment_totals(one, params, scales, batches, STATIC)
  for rule in (RULE, UpdateRule(0.003, 1.0)):
    totals, _ = segment_totals(one, params, scales, batches, rule)
    total, weight = totals["loss"]
    expected = looped(one, params, scales, batches, rule)
    np.testing.assert_allclose(total / weight, expected, rtol=1e-4)
    assert abs(static["loss"][0] - total)[1:].min() > 1e-4


def test_scores_of_a_prefix_do_not_depend_on_what_follows(reads):
  """A segment is scored before anything is learned from it."""
  one, _, params = reads
  scales = jax.tree.map(np.ones_like, jax.device_get(params))
  found = []
  for rest in ("", "bbbb", TEXT[::-1]):
    documents = from_text(TEXT + rest, "char")
    batches = one.batches(documents, 0)
    totals, _ = segment_totals(one, params, scales, batches, RULE)
    found.append(totals["loss"][0])
  whole = len(found[0]) - 1  # The last segment of the first text is short.
  for other in found[1:]:
    np.testing.assert_array_equal(other[:whole], found[0][:whole])
  assert found[2][whole] != found[0][whole]


def test_the_rule_is_chosen_on_validation():
  asked = []

  def loss(rule):
    asked.append(rule)
    return abs(rule.rate - 1e-4) + abs(rule.decay - 1e-2)

  assert dynamic.chosen(loss) == UpdateRule(1e-4, 1e-2)
  assert len(asked) == len(dynamic.RATES) + len(dynamic.DECAYS)
  assert dynamic.chosen(lambda rule: rule.rate) == STATIC


def test_it_stands_beside_the_static_figures(trained, capsys, monkeypatch):
  monkeypatch.setattr(dynamic, "RATES", (1e-3,))
  monkeypatch.setattr(dynamic, "_ROWS", 1)  # One program.
  workdir = trained()
  config = load_run(workdir).config
  config.evaluate.dynamic = True
  evaluate.run(experiments.build, config, workdir)
  record = json.loads((workdir / "evaluation.json").read_text())
  followed = record["dynamic_evaluation"]
  assert followed["rate"] in dynamic.RATES
  assert followed["decay"] in dynamic.DECAYS
  assert followed["static"]["loss"] != followed["dynamic"]["loss"]
  out = capsys.readouterr().out
  for kind in ("static", "dynamic"):
    assert f"{followed[kind]['bits_per_symbol']:.4f}" in out
  config.task = "gap_model"
  with pytest.raises(UserError, match="dynamic=True, config.task='gap_model'"):
    dynamic.require(experiments.build(config, None), config)
