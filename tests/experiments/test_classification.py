"""Classification: pooling, labels beside windows, and the modes it has."""

import csv
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiments import classification
from seqrnn.models import network
from seqrnn.modes import evaluate, predict
from seqrnn.runtime import sharding
from seqrnn.scoring import evaluation
from seqrnn.scoring.predictions import predictions
from seqrnn.training import train
from tests.conftest import tiny


def test_pooling(tmp_path):
  config = tiny(tmp_path, {"model.bidirectional": True})
  body = network.stack(config.model, 9, bidirectional=True)
  ids = np.random.default_rng(0).integers(4, 9, (3, 7))
  lengths = [7, 3, 0]  # The last row is padding.
  ids[np.arange(7) >= np.array(lengths)[:, None]] = PAD
  model = network.sequence_model(config.model, body, 9, True, outputs=3)
  params = network.init(model, jax.random.key(0))
  head = jax.tree.map(np.float64, params["head"])
  # What the layers give, without padding, sequence by sequence.
  each = network.sequence_model(config.model, body, 9, False, outputs=16)
  apart = {**params, "head": {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}}
  outputs = []
  for row, length in enumerate(lengths[:-1]):
    start = each.initial_carry(1)
    _, y_1TH = network.apply(each, apart, ids[row : row + 1, :length], start)
    outputs.append(np.float64(y_1TH[0]))
  expected = {
    "last": lambda y_TH: np.concatenate([y_TH[-1, :8], y_TH[0, 8:]]),
    "mean": lambda y_TH: y_TH.mean(0),
    "max": lambda y_TH: y_TH.max(0),
  }
  for config.model.pooling, pooled in expected.items():
    model = network.sequence_model(config.model, body, 9, True, outputs=3)

    def total(params, model=model):
      carry = model.initial_carry(len(ids))
      _, logits = network.apply(model, params, ids, carry)
      return logits.sum(), logits

    grads, logits = jax.jit(jax.grad(total, has_aux=True))(params)
    for y_TH, found in zip(outputs, logits[:, 0], strict=False):
      y = pooled(y_TH) @ head["kernel"] + head["bias"]
      np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


LETTERS = {"low": "abc", "high": "xyz", "rare": "mno"}


def write(path, rng, count, labels=("low", "low", "high", "rare")):
  lines = []
  for _ in range(count):
    label = rng.choice(labels)
    text = "".join(rng.choices(LETTERS.get(label, "q"), k=rng.randint(3, 20)))
    lines.append(f"{label}\t{text}\n")
  path.write_text("".join(lines))
  return str(path)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Of texts whose letters tell their label."""
  folder = tmp_path_factory.mktemp("labels")
  rng = random.Random(3)
  fields = {"task": "classification", "data.format": "tab"}
  for name, count in (("train", 200), ("validation", 30)):
    fields[f"data.{name}_path"] = write(folder / name, rng, count)
  fields["data.test_path"] = write(
    folder / "test", rng, 40, (*LETTERS, "never seen")
  )
  fields |= {
    "data.path": None,
    "model.bidirectional": True,
    "optimizer.learning_rate": 0.05,
    "train.batch_size": 10,
    "train.epochs": 3,
  }
  return tiny(folder, fields)


@pytest.fixture(scope="module")
def trained(config):
  """Has learned which letters belong to which label."""
  workdir = Path(config.data.train_path).parent / "run"
  train.fit(experiments.build, config, workdir)
  return experiments.load(workdir)


def test_it_learns_and_records_its_macro_f1(trained):
  with (trained.workdir / "metrics.csv").open() as file:
    rows = list(csv.DictReader(file))
  for name in ("accuracy", "macro_f1"):
    assert float(rows[-1][f"validation_{name}"]) == 1
  assert 0 < float(rows[0]["train_macro_f1"]) <= 1
  figures = {name for name in rows[0] if name.startswith("validation_")}
  assert len(figures) == 3  # No bits, no perplexity, which are of symbols.


def test_an_unseen_label_is_an_error_that_is_reported_once(trained, capsys):
  config = trained.config
  config.evaluate.split = "test"
  again = experiments.build(config, trained.experiment.vocabularies)
  assert len(again.batches("test", 0))
  assert not capsys.readouterr().err  # They are counted, without labels.
  figures = evaluate.run(experiments.build, config, trained.workdir)
  err = capsys.readouterr().err
  assert err.count("never seen") == 1 and len(err.splitlines()) == 1
  lines = (trained.workdir.parent / "test").read_text().splitlines()
  truth = [line.split("\t")[0] for line in lines]
  unseen = truth.count("never seen")
  assert figures["accuracy"] == pytest.approx(1 - unseen / 40)
  assert 0 < figures["loss"] < 0.5
  with (trained.workdir / "confusion.csv").open() as file:
    [head, *rows] = csv.reader(file)
  assert head == ["truth", "low", *sorted(head[2:])]  # low is most frequent.
  assert [row[0] for row in rows] == [*head[1:], "<unknown>"]
  for name, *counts in rows:
    name = "never seen" if name == "<unknown>" else name
    assert sum(map(int, counts)) == truth.count(name)
  assert (trained.workdir / "confusion.png").stat().st_size > 5000


def test_a_typed_text_has_probabilities(trained, capsys):
  config = trained.config
  config.predict.text = "aabbcc\u00e9"  # Of two windows.
  predict.run(experiments.build, config, trained.workdir)
  config.predict.text = None
  out, err = capsys.readouterr()
  assert "read as unknown: '\u00e9'" in err
  assert "low 0." in out and "?" in out
  with (trained.workdir / "predictions.csv").open() as file:
    [row] = csv.DictReader(file)
  assert row["label_1"] == "low" and row["truth"] == ""
  chances = [float(row[f"probability_{k}"]) for k in (1, 2, 3)]
  assert sum(chances) == pytest.approx(1, abs=1e-4)
  assert "probability_4" not in row
  [found] = trained.predict("xyzzy", top_k=1)
  labels = trained.experiment.vocabularies["labels"]
  assert labels.names(found.ids[0]) == ["high"]


def test_a_split_is_predicted_with_its_truth(trained, capsys):
  predict.run(experiments.build, trained.config, trained.workdir)
  lines = (trained.workdir.parent / "validation").read_text().splitlines()
  with (trained.workdir / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  for row, line in zip(rows, lines, strict=False):
    label, text = line.split("\t")
    assert row["truth"] == row["label_1"] == label
    assert text == row["input"]
  assert [row["sequence"] for row in rows] == ["0", "1", "2"]
  assert len(rows) == 3 and "labels by probability" in capsys.readouterr().out


def test_predictions_give_the_accuracy_that_evaluation_gives(trained):
  config = trained.config.copy_and_resolve_references()
  config.predict.update({"split": "test", "sequences": 10**6})
  predict.run(experiments.build, config, trained.workdir)
  with (trained.workdir / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  right = [row["truth"] == row["label_1"] for row in rows]
  figures = trained.evaluate("test")
  assert figures["accuracy"] == pytest.approx(np.mean(right))
  assert np.mean(right) < 1
  unseen = [row for row in rows if row["truth"] == "never seen"]
  assert unseen and {row["surprisal_nats"] for row in unseen} == {"inf"}


def test_a_file_has_labels_or_none(trained, tmp_path, capsys):
  (tmp_path / "f").write_text("low\taab\0cc\nxyzzy\nnew\tb\u00e9\n")
  config = trained.config.copy_and_resolve_references()
  config.predict.path = str(tmp_path / "f")
  config.predict.sequences = 2
  predict.run(experiments.build, config, trained.workdir)
  with (trained.workdir / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [(row["truth"], row["input"]) for row in rows] == [
    ("low", r"aab\x00cc"),
    ("", "xyzzy"),
    ("new", "b\u00e9"),
  ]
  out, err = capsys.readouterr()
  assert r"aab\x00cc" in out and "b\u00e9" not in out
  assert "1 more in predictions.csv" in out
  assert err == f"{tmp_path / 'f'}: read as unknown: '\\x00' '\u00e9'\n"


@pytest.mark.parametrize(
  ("keep", "buckets"), [("all", 3), ("first", None), ("last", None)]
)
def test_windows_have_the_label_of_their_text(config, keep, buckets):
  config = config.copy_and_resolve_references()
  config.data.keep = keep
  config.data.buckets = buckets
  config.data.boundaries = False
  config.train.class_weights = "balanced"
  experiment = experiments.build(config, None)
  symbols, labels = (experiment.vocabularies[n] for n in ("symbols", "labels"))
  lines = Path(config.data.train_path).read_text().splitlines()
  expected = []
  for line in lines:
    label, text = line.split("\t")
    T = config.data.window
    cuts = [text[i : i + T] for i in range(0, len(text), T)]
    cuts = {"all": cuts, "first": [text[:T]], "last": [text[-T:]]}[keep]
    expected += [(label, cut) for cut in cuts]
  found, share, widths = [], dict.fromkeys(LETTERS, 0), set()
  for batch in experiment.batches("train", 0):
    widths.add(batch["inputs"].shape[1])
    for n in np.flatnonzero(batch["weights"]):
      [label] = labels.names(batch["targets"][n])
      found.append((label, symbols.text(batch["inputs"][n])))
      share[label] += batch["importance"][n, 0]
  assert sorted(found) == sorted(expected)
  assert len(widths) == (buckets or 1)
  assert share == pytest.approx(dict.fromkeys(LETTERS, len(found) / 3), 1e-4)


def test_a_text_has_the_mean_probabilities_of_its_windows(config):
  config = config.copy_and_resolve_references()
  config.data.buckets = 3
  config.model.initial_scale = 2.0  # The windows of a text disagree.
  experiment = experiments.build(config, None)
  symbols, labels = (experiment.vocabularies[n] for n in ("symbols", "labels"))
  params = experiment.init(jax.random.key(1))
  T, texts = config.data.window, []
  for line in Path(config.data.test_path).read_text().splitlines():
    label, text = line.split("\t")
    ids = np.array([BEGIN, *symbols.encode(text), END], np.int32)
    ids = np.pad(ids, (0, -len(ids) % T)).reshape(-1, T)
    batch = {"inputs": ids, "reset": np.ones(len(ids), bool)}
    _, logits_BNV = experiment.predict(params, (), batch)
    p_V = np.float64(jax.nn.softmax(logits_BNV[:, 0])).mean(axis=0)
    texts.append((text, int(labels.encode([label])[0]), p_V))
  target, best = np.array([(t, p_V.argmax()) for _, t, p_V in texts]).T
  nll = -np.log([p_V[t] for _, t, p_V in texts if t > UNKNOWN]).mean()
  assert 0 < np.mean(target == best) < 1
  for mesh in (sharding.mesh(), sharding.one_device()):
    every = jax.device_put(params, sharding.replicated(mesh))
    examine = evaluation.examiner(experiment, mesh)
    figures, answers = examine(every, experiment.batches("test", None))
    assert figures["accuracy"] == pytest.approx(np.mean(target == best))
    assert figures["loss"] == pytest.approx(nll, rel=1e-5)
    counts_VV = np.zeros((len(labels), len(labels)))
    np.add.at(counts_VV, (target, best), 1)
    np.testing.assert_array_equal(answers.confusion(len(labels)), counts_VV)
  found = list(predictions(experiment, params, "test", 2))
  assert [p.document for p in found] == [*range(len(texts))]
  for p, (text, t, p_V) in zip(found, texts, strict=True):
    assert p.text("char") == text and p.ids.shape == (1, 2)
    np.testing.assert_allclose(p.probabilities[0], np.sort(p_V)[:-3:-1], 1e-5)
    np.testing.assert_array_equal(p.ids[0], np.argsort(-p_V)[:2])
    if t > UNKNOWN:
      assert p.surprisal[0] == pytest.approx(-np.log(p_V[t]), rel=1e-4)


@pytest.mark.parametrize(
  ("changes", "rule"),
  [
    ({"data.format": "spaces"}, "data.format='spaces' has no labels; it needs"),
    ({"data.stateful": True}, "data.stateful=True with task='classification'"),
    ({"data.repeats": "weight"}, "data.repeats='weight' with task='class"),
    (
      {"model.tied": True, "model.embedding_size": 8},
      "model.tied=True: the outputs are labels",
    ),
    ({"data.path": "one"}, "split has one label, 'one'; there"),
  ],
)
def test_settings_that_are_refused(tmp_path, monkeypatch, changes, rule):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "one").write_text("a\nb\nc\n" * 9)
  fields = {"task": "classification", "data.format": "files", **changes}
  with pytest.raises(UserError, match=rule):
    experiments.build(tiny(tmp_path, fields), None)


def test_a_split_without_a_known_label_is_refused(capsys):
  labels = Vocabulary("id", ("pos", "neg"))
  with pytest.raises(UserError, match="'1' '0'; those of training are 'pos'"):
    classification.check_seen(labels, ["1", "0"], "test")
  classification.check_seen(labels, ["1", "neg"], "test")
  assert capsys.readouterr().err.endswith("count as errors: '1'\n")
