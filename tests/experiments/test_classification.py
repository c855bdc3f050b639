"""Classification: labels beside windows, and the modes it has."""

import csv
import math
import random

import jax
import numpy as np
import pytest
from scipy import sparse
from scipy.special import log_softmax, softmax

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data import splits, vectors, vocabulary
from seqrnn.data.documents import Document
from seqrnn.data.read import terms
from seqrnn.data.vocabulary import BEGIN, END, RESERVED, UNKNOWN
from seqrnn.errors import UserError
from seqrnn.modes import evaluate
from seqrnn.run import load_run
from seqrnn.runtime import sharding
from seqrnn.scoring import evaluation
from seqrnn.scoring.joining import LabelRows
from seqrnn.scoring.predictions import predictions
from seqrnn.training import linear, rates, train
from tests.conftest import random_params, read_csv, tiny
from tests.experiments import test_tagging
from tests.models.test_cells import normal

LETTERS = {"low": "abc", "high": "xyz", "rare": "mno"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Has learned which letters have which label; its embedding is frozen."""
  folder, rng = tmp_path_factory.mktemp("labels"), random.Random(3)
  plain = folder / "plain.txt"
  plain.write_text("abwca\nwzwxy\nmwno\n")  # No labelled text has a w.
  frequent = ("low", "low", "high", "rare")
  fields = {
    "task": "classification",
    "data.format": "tab",
    "data.path": None,
    "data.unlabelled_path": str(plain),
    "model.embedding_size": 5,
    "model.pooling": "max",
    "optimizer.learning_rate": 0.05,
    "train.freeze": "embedding",
    "train.batch_size": 8,
    "train.epochs": 2,
  }
  for split, count, labels in (
    ("train", 150, frequent),
    ("validation", 30, frequent),
    ("test", 40, (*LETTERS, "never seen")),
  ):
    lines = []
    for label in rng.choices(labels, k=count):
      letters = rng.choices(LETTERS.get(label, "q"), k=rng.randint(3, 20))
      lines.append(f"{label}\t{''.join(letters)}\n")
    (folder / split).write_text("".join(lines))
    fields[f"data.{split}_path"] = str(folder / split)
  train.fit(experiments.build, tiny(folder, fields), folder / "run")
  return load_run(folder / "run")


def texts_of(run, split):
  """Labels and texts of a split."""
  content = (run.workdir.parent / split).read_text()
  return [line.split("\t") for line in content.splitlines()]


def predicted(run, **settings):
  """The rows of predictions.csv, one a text."""
  return [row for [row] in test_tagging.predicted(run, **settings)]


def test_it_learns_and_records_its_macro_f1(run):
  rows = read_csv(run.workdir / "metrics.csv")
  for name in ("accuracy", "macro_f1"):
    assert float(rows[-1][f"validation_{name}"]) == 1
  assert 0 < float(rows[0]["train_macro_f1"]) <= 1
  figures = {name for name in rows[0] if name.startswith("validation_")}
  assert len(figures) == 3  # No bits, no perplexity, which are of symbols.


def test_the_embedding_starts_from_all_texts(run):
  texts = [text for _, text in texts_of(run, "train")]
  texts += (run.workdir.parent / "plain.txt").read_text().splitlines()
  names = run.experiment.vocabularies["symbols"]
  pieces = splits.from_documents(
    [Document(str(n), text, True, True) for n, text in enumerate(texts)], "char"
  )
  expected_VD = vectors.of_pieces(pieces, names, 5)
  table_VD = run.params["embedding"]["embedding"]
  np.testing.assert_array_equal(table_VD, expected_VD)
  assert names.encode("w") > UNKNOWN
  some_V = (expected_VD[len(RESERVED) :] != 0).any(1)
  assert some_V[: len(names.symbols)].all()


@pytest.mark.usefixtures("rendered")
def test_an_unseen_label_is_an_error_in_all_figures(run, capsys):
  config = run.config.copy_and_resolve_references()
  config.evaluate.split = "test"
  again = experiments.build(config, run.experiment.vocabularies)
  assert len(again.batches("test", 0))
  assert not capsys.readouterr().err  # They are counted, without labels.
  figures = evaluate.run(experiments.build, config, run.workdir)
  out, err = capsys.readouterr()
  assert err.count("never seen") == 1 and len(err.splitlines()) == 1
  truth = [label for label, _ in texts_of(run, "test")]
  unseen = truth.count("never seen")
  assert f"share of {max(map(truth.count, truth)) / 40:.4f}" in out
  linear = f"same split: accuracy {1 - unseen / 40:.4f}\n"
  assert f"logistic regression of characters, on the {linear}" in out
  assert figures["accuracy"] == pytest.approx(1 - unseen / 40)
  assert 0 < figures["loss"] < 0.5
  with (run.workdir / "confusion.csv").open() as file:
    [head, *rows] = csv.reader(file)
  assert head == ["truth", "low", *sorted(head[2:])]  # low is most frequent.
  assert [row[0] for row in rows] == [*head[1:], "<unknown>"]
  for name, *counts in rows:
    name = "never seen" if name == "<unknown>" else name
    assert sum(map(int, counts)) == truth.count(name)
  assert (run.workdir / "confusion.png").stat().st_size > 5000

  rows = predicted(run, split="test", sequences=10**6)
  assert [[r["truth"], r["input"]] for r in rows] == texts_of(run, "test")
  right = [row["truth"] == row["label_1"] for row in rows]
  assert figures["accuracy"] == pytest.approx(np.mean(right))
  for row in rows:
    infinite = row["surprisal_nats"] == "inf"
    assert infinite == (row["truth"] == "never seen")


def test_texts_have_labels_or_none(run, tmp_path, capsys):
  [row] = predicted(run, text="aabbcc\u00e9")
  out, err = capsys.readouterr()
  assert "read as unknown: '\u00e9'" in err and "low 0." in out and "?" in out
  assert row["label_1"] == "low" and row["truth"] == ""
  chances = [float(row[f"probability_{k}"]) for k in (1, 2, 3)]
  assert sum(chances) == pytest.approx(1, abs=1e-4)
  assert "probability_4" not in row
  [high] = run.predict("xyzzy", top_k=1)
  assert run.experiment.labels.names(high.ids[0]) == ["high"]

  (tmp_path / "f").write_text("low\taab\0cc\nxyzzy\nnew\tb\u00e9\n")
  rows = predicted(run, path=str(tmp_path / "f"), sequences=2)
  pairs = [(row["truth"], row["input"]) for row in rows]
  assert pairs == [("low", r"aab\x00cc"), ("", "xyzzy"), ("new", "b\u00e9")]
  out, err = capsys.readouterr()
  assert r"aab\x00cc" in out and "b\u00e9" not in out
  assert "1 more in predictions.csv" in out
  assert err == f"{tmp_path / 'f'}: read as unknown: '\\x00' '\u00e9'\n"


def test_windows_have_the_label_of_their_text(run):
  config = run.config.copy_and_resolve_references()
  config.data.boundaries = False
  T = config.data.window
  for keep, buckets in (("all", 3), ("first", None), ("last", None)):
    config.data.update(keep=keep, buckets=buckets)
    experiment = experiments.build(config, None)
    symbols, labels = experiment.vocabularies["symbols"], experiment.labels
    expected = []
    for label, text in texts_of(run, "train"):
      cuts = [text[i : i + T] for i in range(0, len(text), T)]
      cuts = {"all": cuts, "first": [text[:T]], "last": [text[-T:]]}[keep]
      expected += [(label, cut) for cut in cuts]
    windows, widths = [], set()
    for batch in experiment.batches("train", 0):
      widths.add(batch["inputs"].shape[1])
      for n in np.flatnonzero(batch["weights"]):
        [label] = labels.names(batch["targets"][n])
        windows.append((label, symbols.text(batch["inputs"][n])))
    assert sorted(windows) == sorted(expected)
    assert len(widths) == (buckets or 1)


def with_wide_part(run):
  config = run.config.copy_and_resolve_references()
  config.data.buckets, config.train.batch_size = 2, 64
  config.train.freeze, config.train.choice = None, "last"
  config.model.update(wide=True, parts=3, embedding_size=None)
  known = vocabulary.encoded(experiments.build(config, None).vocabularies)
  (run.workdir / "terms.json").write_bytes(known)
  known = vocabulary.load(run.workdir / "terms.json")
  return config, experiments.build(config, known)


def test_the_wide_part_reads_the_terms_of_the_whole_text(run, monkeypatch):
  config, experiment = with_wide_part(run)
  read = terms.Terms(experiment.vocabularies["terms"], "char", 3)
  texts = [text for _, text in texts_of(run, "test")]
  assert max(map(len, texts)) > config.data.window
  for how in ({}, {"ordered": True, "named": True}):
    for batch in experiment.batches("test", None, **how):
      some = batch["weights"][:, 0] > 0
      asked = [texts[n] for n in batch["document"][some]]
      expected = sparse.vstack([*map(read.row, asked)]).toarray()
      np.testing.assert_array_equal(batch["terms"][some], expected)
  calls, hashed = [], terms._buckets  # Once a text, not once a window.
  spy = lambda *asked: calls.append(asked) or hashed(*asked)
  monkeypatch.setattr(terms, "_buckets", spy)
  windows = sum(len(b["document"]) for b in experiment.batches("test", None))
  assert windows > len(texts) == len(calls)
  params = random_params(experiment, 0)
  _, logits = experiment.predict(params, (), batch)
  table, weights = params["wide"]["table"], params["wide"]["weights"]
  other = {**params, "wide": {"table": 2 * table, "weights": weights}}
  _, more = experiment.predict(other, (), batch)
  ids = slice(UNKNOWN + 1, None)  # Of labels.
  expected = 3 * weights[1] * batch["terms"] @ table
  np.testing.assert_allclose((more - logits)[:, 0, ids], expected, 1e-3, 1e-3)
  # Beside a fitted wide part, the layers have a weight in the logits.
  head = {**params["head"], "bias": params["head"]["bias"] + 1}
  _, more = experiment.predict({**params, "head": head}, (), batch)
  np.testing.assert_allclose((more - logits)[:, 0, ids], weights[0], 1e-3, 1e-3)
  config.model.parts = None
  with pytest.raises(
    UserError, match="vocabulary.json: model.wide=True reads terms"
  ):
    experiments.build(config, run.experiment.vocabularies)


def test_the_wide_part_is_first_a_regression_and_then_stays(run):
  config, experiment = with_wide_part(run)
  new = random_params(experiment, 0)
  params = linear.fitted(experiment, new)
  assert not params["head"]["kernel"].any() and params["body"] is new["body"]
  labels, texts = zip(*texts_of(run, "train"), strict=True)
  read = terms.Terms(experiment.vocabularies["terms"], "char", 3)
  x_NF = sparse.vstack([*map(read.row, texts)]).toarray().astype(float)
  names = experiment.labels.symbols
  y_NV = np.array([[a == b for b in names] for a in labels]).astype(float)
  of_FV, others_FV = 1 + (x_NF > 0).T @ y_NV, 1 + (x_NF > 0).T @ (1 - y_NV)
  ratio_FV = np.log(of_FV / of_FV.sum(0) * others_FV.sum(0) / others_FV)
  scale_FV = np.sqrt(1 + ratio_FV**2)

  def objective(table_FV):
    nll = -(y_NV * log_softmax(x_NF @ table_FV, axis=1)).sum()
    return 30 * nll + 0.5 * ((table_FV / scale_FV) ** 2).sum()

  table_FV = 3 * params["wide"]["table"].astype(float)
  least = objective(table_FV)
  for seed in range(5):  # Its gradient is small beside its curvature.
    rng = np.random.default_rng(seed)
    step_FV = 0.1 * scale_FV * rng.standard_normal(table_FV.shape)
    up, down = (objective(table_FV + sign * step_FV) for sign in (1, -1))
    assert abs(up - down) < 0.1 * (up + down - 2 * least)
  factors = rates.shares(experiment, config, None)
  assert factors.pop("wide") == {"table": 0, "weights": 0}
  assert {*jax.tree.leaves(factors)} == {1}
  config.train.choice = "best"
  assert rates.shares(experiment, config, None) is None


def test_validation_chooses_the_weights_of_layers_and_wide_part():
  config = base.get_config()
  config.task = "classification"
  rng, N, V = np.random.default_rng(2), 60, 3
  target = np.append(rng.integers(0, V, N - 1) + len(RESERVED), UNKNOWN)
  truth_NV = 5.0 * (target[:, None] == np.arange(V) + len(RESERVED))
  noise_NV = rng.normal(size=(N, V))

  def chosen(wide_NV, layers_NV):
    both = np.stack([layers_NV, wide_NV])

    def examine(weights):
      log_p_NV = log_softmax(np.tensordot(weights, both, 1), axis=1)
      special = ((0, 0), (len(RESERVED), 0))
      log_p_NV = np.pad(log_p_NV, special, constant_values=-np.inf)
      some = np.ones(N, bool)
      return {}, LabelRows(target, target, some, some, log_p=log_p_NV)

    return linear.choose_weights(config, 0, examine)

  def share(wide_NV, layers_NV):
    weights = chosen(wide_NV, layers_NV)
    return weights[0] / weights.sum()

  assert share(noise_NV, noise_NV) == 0.125  # All are as likely.
  assert share(3 * noise_NV, truth_NV) == 0.75
  assert share(9 * noise_NV, truth_NV) == 1
  assert share(truth_NV, -9 * truth_NV) == 0
  # Layers that are less sure of the same say nothing new.
  both_NV = truth_NV + 3 * noise_NV
  assert share(both_NV, both_NV / 3) == 0.125
  # Labels that are drawn at a temperature are predicted at it.
  N, p_NV = 1000, rng.dirichlet(np.ones(V), 1000)
  target = len(RESERVED) + (p_NV.cumsum(1) > rng.random((N, 1))).argmax(1)
  for temperature, total in ((1, 1), (0.5, 2), (4, 0.25)):
    hot_NV = temperature * np.log(p_NV)
    np.testing.assert_allclose(chosen(hot_NV, hot_NV).sum(), total)
  assert linear.choose_weights(config, 9, lambda _: None) is None

  def share_of(texts, *losses):
    left = iter(losses)
    return linear.choose_weights(
      config, texts, lambda _: ({"loss": next(left)}, None)
    )[0]

  config.task = "regression"
  assert share_of(100, 1.0, 1.0, 0.99, 0.95, 0.89, 0.89) == 0.75  # -5.8 nats.
  assert share_of(100, 1.0, 1.0, 0.99, 0.95, 0.91, 0.88) == 0.125
  assert share_of(100, 1.0, 0.97, 0.99, 1.2, 1.5, 2.0) == 0  # -1.5 nats.
  assert share_of(100, *[1.0, 0.99, 0.99, 0.99, 0.99, 0.99]) == 0.125
  assert share_of(100, *[math.nan] * 6) == 0.125
  config.train.choice = "all"
  assert share_of(100) == 0.125  # The layers know these texts.
  config.model.logit_weights = 0.9, 2.0
  assert share_of(100) == 0.9


def test_a_text_has_the_mean_probabilities_of_its_windows(run):
  config = run.config.copy_and_resolve_references()
  config.data.buckets = 2
  experiment = experiments.build(config, run.experiment.vocabularies)
  texts = texts_of(run, "test")
  symbols, labels = experiment.vocabularies["symbols"], experiment.labels
  params = normal(np.random.default_rng(1), run.params, 2.0)
  params = jax.tree.map(np.float32, params)  # The windows of a text disagree.
  T, windows = run.config.data.window, []
  for _, text in texts:
    ids = np.array([BEGIN, *symbols.encode(text), END], np.int32)
    windows.append(np.pad(ids, (0, -len(ids) % T)).reshape(-1, T))
  inputs = np.concatenate(windows)
  batch = {"inputs": inputs, "reset": np.ones(len(inputs), bool)}
  _, logits_B1V = jax.jit(experiment.predict)(params, (), batch)
  p_BV = softmax(np.asarray(logits_B1V[:, 0], np.float64), axis=1)
  stops = np.cumsum([*map(len, windows)])
  p_DV = np.array([p.mean(0) for p in np.split(p_BV, stops[:-1])])
  target = labels.encode([label for label, _ in texts])
  best, known = p_DV.argmax(1), target > UNKNOWN
  nll = -np.log(p_DV[known, target[known]])
  assert 0 < np.mean(target == best) < 1

  mesh = sharding.mesh()
  every = jax.device_put(params, sharding.replicated(mesh))
  examine = evaluation.examiner(experiment, mesh)
  figures, answers = examine(every, experiment.batches("test", None))
  assert figures["accuracy"] == pytest.approx(np.mean(target == best))
  assert figures["loss"] == pytest.approx(nll.mean(), rel=1e-5)
  counts_VV = np.zeros((len(labels), len(labels)))
  np.add.at(counts_VV, (target, best), 1)
  np.testing.assert_array_equal(answers.confusion(len(labels)), counts_VV)
  rows = list(predictions(experiment, params, "test", 2))
  assert [p.document for p in rows] == [*range(len(texts))]
  for p, (_, text), p_V in zip(rows, texts, p_DV, strict=True):
    assert p.text("char") == text and p.ids.shape == (1, 2)
    np.testing.assert_allclose(p.probabilities[0], np.sort(p_V)[:-3:-1], 1e-5)
    np.testing.assert_array_equal(p.ids[0], np.argsort(-p_V)[:2])
  surprisal = np.array([p.surprisal[0] for p in rows])
  np.testing.assert_allclose(surprisal[known], nll, 1e-4)
