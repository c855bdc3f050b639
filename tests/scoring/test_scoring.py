"""Scoring: against one sequence after another, and equal ones counted once."""

import json
import random

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN
from seqrnn.models import losses
from seqrnn.modes import evaluate
from seqrnn.runtime import sharding
from seqrnn.scoring import evaluation, scoring
from seqrnn.training import train
from tests.conftest import tiny

SESSIONS = {
  "data.unit": "session",
  "data.split": "last_documents",
  "data.validation_fraction": 0.3,
  "data.buckets": 3,
  "data.repeats": "weight",
}


def write_sessions(folder, count=30):
  """Sessions of 1 to 19 events, some of which come several times."""
  rng = random.Random(0)
  some = [
    " ".join(rng.choices("abcde", k=rng.choice([1, 3, 4, 10, 19])))
    for _ in range(count)
  ]
  lines = [rng.choice(some) for _ in range(2 * count)]
  path = folder / "sessions.txt"
  path.write_text("\n".join(lines), "utf-8")
  return str(path), lines


def make(tmp_path, changes):
  """An experiment, parameters that are not small, and its documents."""
  path, lines = write_sessions(tmp_path)
  config = tiny(tmp_path, {**SESSIONS, "data.path": path, **changes})
  experiment = experiments.build(config, None)
  key = jax.random.key(1)
  params = jax.eval_shape(experiment.init, key)
  rng = np.random.default_rng(1)
  draw = lambda x: rng.normal(size=x.shape).astype(np.float32)
  params = jax.tree.map(draw, params)
  return experiment, params, from_text("\n".join(lines), "session")


def one_by_one(experiment, params, documents, window):
  """Surprisal of a document's targets, from its windows without padding."""
  symbols = experiment.vocabularies["symbols"]
  predict = jax.jit(experiment.predict)
  for document in documents:
    ids = np.array([BEGIN, *symbols.encode(document.symbols), END])
    found = []
    length = window if experiment.fills_gaps else window + 1
    for start in range(0, max(len(ids) - (length > window), 1), window):
      part_1T = ids[None, start : start + length]
      inputs_1T = part_1T if experiment.fills_gaps else part_1T[:, :-1]
      batch = {"inputs": inputs_1T, "reset": np.ones(1, bool)}
      _, logits_1TV = predict(params, (), batch)
      targets_1T = part_1T if experiment.fills_gaps else part_1T[:, 1:]
      nll_T = losses.surprisal(logits_1TV, targets_1T)[0]
      asked_T = targets_1T[0] > END if experiment.fills_gaps else slice(None)
      found.append(np.asarray(nll_T)[asked_T])
    yield np.concatenate(found)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"data.buckets": None, "data.repeats": "each"},
    {"task": "gap_model"},
  ],
  ids=["weight", "each", "gap model"],
)
def test_scores_are_those_of_each_session_by_itself(
  tmp_path, monkeypatch, changes
):
  monkeypatch.setattr(scoring, "ROWS", 2)  # Eight rows on four devices.
  experiment, params, documents = make(tmp_path, changes)
  scores = scoring.scorer(experiment, sharding.mesh())(params, documents)
  assert len(scores.distinct) == len(documents)
  texts = {tuple(document.symbols) for document in documents}
  once = changes.get("data.repeats") != "each"
  assert len(scores.bounds) - 1 == len(texts if once else documents)
  expected = one_by_one(experiment, params, documents, window=8)
  for j, nll in enumerate(expected):
    np.testing.assert_allclose(scores.document(j), nll, rtol=1e-5, atol=1e-5)


def test_figures_of_a_target_are_those_of_its_definitions():
  rng = np.random.default_rng(0)
  logits_BNV = rng.normal(0, 5, (3, 7, 11)).astype(np.float32)
  logits_BNV[0, 0, 5:] = 2.5  # Equals do not count as more likely.
  targets_BN = rng.integers(4, 11, (3, 7))
  targets_BN[1, 1] = targets_BN[2, 2] = UNKNOWN
  logits_BNV[1, 1, UNKNOWN], logits_BNV[2, 2, UNKNOWN] = 50, -50
  found = jax.device_get(scoring.target_scores(logits_BNV, targets_BN, 4))
  for place in np.ndindex(3, 7):
    row, target = logits_BNV[place].astype(float), targets_BN[place]
    p = np.exp(row) / np.exp(row).sum()
    nll, rank = -np.log(p[target]), 1 + sum(p > p[target])
    if target == UNKNOWN:
      nll, rank = max(nll, np.log(11)), 2**31 - 1
    np.testing.assert_allclose(found["nll"][place], nll, rtol=1e-5, atol=1e-5)
    assert found["rank"][place] == rank
    entropy = -(p * np.log(p)).sum()
    np.testing.assert_allclose(found["entropy"][place], entropy, atol=1e-5)
    chances = p[found["ids"][place]]
    np.testing.assert_allclose(chances, np.sort(p)[:-5:-1])
    np.testing.assert_allclose(found["chances"][place], chances, rtol=1e-5)


def test_only_what_is_asked_for_comes_back(tmp_path):
  experiment, params, documents = make(tmp_path, {})

  def by(params, carry, batch):
    carry, logits_BNV = experiment.heads["forward"](params, carry, batch)
    return carry, scoring.target_scores(logits_BNV, batch["targets"], 2)

  score = scoring.scorer(experiment, sharding.mesh(), by)
  scores = score(params, "train")  # In order, though it is for training.
  names = experiment.vocabularies["symbols"]
  for j, document in enumerate(documents[:5]):
    found = scores.document(j)
    n = len(document.symbols) + 1
    assert found["rank"].shape == (n,) and found["ids"].shape == (n, 2)
    targets = [*names.encode(document.symbols), END]
    firsts = found["rank"] == 1
    np.testing.assert_array_equal(
      found["ids"][firsts, 0], np.array(targets)[firsts]
    )


def test_equal_sessions_with_weights_are_the_full_list(tmp_path):
  whole = {"task": "gap_model", "train.batch_size": 128}  # One batch has all.
  each, params, _ = make(tmp_path, {**whole, "data.repeats": "each"})
  once, _, _ = make(tmp_path, whole)
  everything = []
  for experiment in (each, once):
    (batch,) = experiment.batches("train", 0)
    gradient = jax.value_and_grad(experiment.loss, has_aux=True)
    (loss, (_, totals)), grads = jax.jit(gradient)(params, (), batch, None)
    everything.append((loss, totals, grads))
  assert batch["weights"].max() > 1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
    *everything,
  )
  figures = [
    evaluation.evaluator(experiment, sharding.mesh())(
      params, experiment.batches("validation", 0)
    )
    for experiment in (each, once)
  ]
  assert figures[0] == pytest.approx(figures[1], rel=1e-6)
  a, b = each.facts("train"), once.facts("train")
  assert a.items() <= b.items()
  assert b["distinct_documents"] < a["documents"]
  assert b["distinct_symbols"] < a["symbols"]


def test_a_run_of_sessions_trains_and_scores(tmp_path):
  path, lines = write_sessions(tmp_path)
  fields = {**SESSIONS, "data.path": path, "train.max_steps": 3}
  config = tiny(tmp_path, fields)
  train.fit(experiments.build, config, tmp_path / "run")
  run = experiments.load(tmp_path / "run")
  text = "\n".join(lines[-9:] + lines[:2])
  # In order, though equal ones and those as long are scored together.
  predicted = [p.surprisal for p in run.predict(text)]
  np.testing.assert_allclose(run.score(text), np.concatenate(predicted), 1e-5)
  config.evaluate.split = "validation"
  figures = evaluate.run(experiments.build, config, tmp_path / "run")
  record = json.loads((tmp_path / "run/evaluation.json").read_text())
  assert record["distinct_documents"] < record["documents"]
  assert record["loss"] == figures["loss"] == run.evaluate("validation")["loss"]
