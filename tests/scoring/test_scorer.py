"""Scoring: against one sequence after another, and equal ones counted once."""

import functools
import random

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN
from seqrnn.runtime import sharding
from seqrnn.scoring import evaluation, scorer
from tests.conftest import untrained
from tests.scoring.oracle import tower, towers

SESSIONS = {
  "data.unit": "session",
  "data.split": "last_documents",
  "data.validation_fraction": 0.3,
  "data.buckets": 2,
  "data.repeats": "weight",
}
MODELS = {
  "language model": {},
  "gap model": {"task": "gap_model"},
  "all": {"train.batch_size": 128},  # One batch has all.
  "each": {"train.batch_size": 128, "data.repeats": "each"},
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
  """Name -> a run of sessions, some of them equal, and its documents."""
  folder, rng = tmp_path_factory.mktemp("sessions"), random.Random(0)
  some = [" ".join(rng.choices("abcde", k=n)) for n in 6 * (1, 3, 4, 10, 19)]
  text = "\n".join(rng.choice(some) for _ in range(60))
  (folder / "sessions.txt").write_text(text, "utf-8")

  @functools.cache
  def run(name):
    fields = {"data.path": str(folder / "sessions.txt"), **MODELS[name]}
    return untrained(folder, SESSIONS | fields), from_text(text, "session")

  return run


def one_by_one(run, document, window=8):
  """The surprisal of a document's targets, from its windows, in NumPy."""
  head, body = run.params["head"], run.params["body"]
  symbols = run.experiment.vocabularies["symbols"]
  ids = np.array([BEGIN, *symbols.encode(document.symbols), END])
  gaps, found = run.experiment.fills_gaps, []
  length = window if gaps else window + 1
  for start in range(0, max(len(ids) - (length > window), 1), window):
    part = ids[start : start + length]
    if gaps:  # The states before and after each symbol.
      y_TH, H = towers(body, part), 8
      y_TH = np.pad(y_TH, [(1, 1), (0, 0)])
      y_TH = np.concatenate([y_TH[:-2, :H], y_TH[2:, H:]], axis=1)
      targets = part
    else:
      y_TH, targets = tower(body, part[:-1]), part[1:]
    logs_TV = log_softmax(y_TH @ head["kernel"] + head["bias"], axis=1)
    nll_T = -logs_TV[np.arange(len(targets)), targets]
    found.append(nll_T[targets > END] if gaps else nll_T)
  return np.concatenate(found)


@pytest.mark.parametrize("name", ["language model", "gap model"])
def test_scores_are_those_of_each_session_by_itself(make, monkeypatch, name):
  monkeypatch.setattr(scorer, "ROWS", 2)  # Eight rows on four devices.
  run, documents = make(name)
  score = scorer.scorer(run.experiment, sharding.mesh())
  scores = score(run.params, documents)
  assert len(scores.distinct) == len(documents)
  texts = {tuple(document.symbols) for document in documents}
  assert len(scores.bounds) - 1 == len(texts) < len(documents)
  for j, document in enumerate(documents):
    expected = one_by_one(run, document)
    np.testing.assert_allclose(scores.document(j), expected, 1e-4, 1e-4)


def test_figures_of_a_target_are_those_of_its_definitions():
  rng = np.random.default_rng(0)
  logits_BNV = rng.normal(0, 5, (3, 7, 11)).astype(np.float32)
  logits_BNV[0, 0, 5:] = 2.5  # Equals do not count as more likely.
  targets_BN = rng.integers(4, 11, (3, 7))
  targets_BN[1, 1] = targets_BN[2, 2] = UNKNOWN
  logits_BNV[1, 1, UNKNOWN], logits_BNV[2, 2, UNKNOWN] = 50, -50
  figures = jax.jit(scorer.target_scores, static_argnums=2)
  found = jax.device_get(figures(logits_BNV, targets_BN, 4))
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


def test_equal_sessions_with_weights_are_the_full_list(make):
  results = []
  for name in ("each", "all"):
    run, _ = make(name)
    (batch,) = run.experiment.batches("train", 0)
    gradient = jax.value_and_grad(run.experiment.loss, has_aux=True)
    state = run.params, run.experiment.carry(len(batch["inputs"]))
    (loss, (_, totals)), grads = jax.jit(gradient)(*state, batch, None)
    examine = evaluation.examiner(run.experiment, sharding.mesh())
    figures, _ = examine(run.params, run.experiment.batches("validation", 0))
    results.append((loss, totals, grads, figures))
  assert batch["weights"].max() > 1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    *results,
  )
  a, b = (make(name)[0].experiment.facts("train") for name in ("each", "all"))
  assert a.items() <= b.items()
  assert b["distinct_documents"] < a["documents"]
  assert b["distinct_symbols"] < a["symbols"]
