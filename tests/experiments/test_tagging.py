"""Tagging: spans, spaces, words by their characters, and what is shown."""

import csv
import random

import jax
import numpy as np
import pytest

import experiments
from experiments import tagging
from seqrnn.data.corpora import from_text
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.inference import metrics
from seqrnn.modes import evaluate, predict
from seqrnn.training import fit
from tests.conftest import tiny


def spans(tags):
  """(first, last, type) of each span; an unseen tag is one of its own."""
  found = []
  for t, tag in enumerate(tags):
    if tag == "O":
      continue
    kind, _, name = tag.partition("-")
    goes_on = kind == "I" and found and found[-1][1:] == (t - 1, name)
    if goes_on:
      found[-1] = (found[-1][0], t, name)
    else:
      found.append((t, t, name))
  return found


def test_spans_are_counted_as_a_loop_does():
  names = ("O", "B-x", "I-x", "B-y", "I-y")
  tag_of = {UNKNOWN: "B-?"} | dict(enumerate(names, 4))
  rng = np.random.default_rng(0)
  count = tagging.counter(Vocabulary("id", names))
  targets = rng.choice([UNKNOWN, *range(4, 9)], (200, 6), p=[0.05] + [0.19] * 5)
  best = np.where(
    rng.random((200, 6)) < 0.7, targets, rng.integers(4, 9, (200, 6))
  )
  best = np.maximum(best, 4)
  lengths = rng.integers(0, 7, (200, 1))
  weights = (np.arange(6) < lengths).astype(np.float32)
  totals = count(targets, best, weights)
  both = true = found = 0
  for row in range(200):
    T = int(lengths[row, 0])
    a, b = (
      spans([tag_of[i] for i in ids[row, :T].tolist()])
      for ids in (targets, best)
    )
    both += len(set(a) & set(b))
    true += len(a)
    found += len(b)
  assert 50 < both < min(true, found)
  assert [float(x) for x in totals["precision"]] == [both, found]
  assert [float(x) for x in totals["recall"]] == [both, true]
  assert [float(x) for x in totals["f1"]] == [2 * both, true + found]


def test_of_two_tags_the_rarer_is_looked_for_and_of_many_none():
  count = tagging.counter(Vocabulary("id", ("none", "space")))
  targets = np.array([[5, 5, 4, 4, 5]])
  best = np.array([[5, 4, 5, 4, 5]])
  totals = count(targets, best, np.array([[1, 1, 1, 1, 0]], np.float32))
  assert [float(x) for x in totals["f1"]] == [2, 4]
  assert tagging.counter(Vocabulary("id", ("A", "B", "C")))() == {}
  nothing = np.zeros((1, 5), np.float32)
  sums = metrics.zeros(totals)
  figures = metrics.finish(metrics.add(sums, count(targets, best, nothing)))
  assert figures == {"precision": 0, "recall": 0, "f1": 0}


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
  """Has learned that a space follows each `.`, and nothing else."""
  folder = tmp_path_factory.mktemp("spaces")
  rng = random.Random(1)
  for n in range(12):
    words = [
      "".join(rng.choices("abc", k=rng.randint(1, 5))) for _ in range(60)
    ]
    (folder / f"{n}.txt").write_text(". \n".join(words))
  fields = {
    "task": "tagging",
    "data.format": "spaces",
    "data.path": str(folder / "*.txt"),
    "model.bidirectional": True,
    "optimizer.learning_rate": 0.05,
    "train.batch_size": 16,
    "train.epochs": 2,
  }
  config = tiny(folder, fields)
  fit.fit(experiments.build, config, folder / "run")
  return experiments.load(folder / "run")


def test_spaces_are_restored(spaced, capsys):
  config = spaced.config
  config.predict.text = "ab.c. cabba.cab.b"
  predict.run(experiments.build, config, spaced.workdir)
  config.predict.text = None
  out, err = capsys.readouterr()
  assert "restored: ab. c. cabba. cab. b\n" in out
  assert not err  # The space is no symbol, so none that is unknown.
  with (spaced.workdir / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert "".join(row["input"] for row in rows) == "ab.c.cabba.cab.b"
  for row in rows:
    assert row["truth"] == ""
    assert row["label_1"] == ("space" if row["input"] == "." else "none")


def test_the_f1_of_spaces_stands_beside_the_accuracy(spaced):
  figures = evaluate.run(experiments.build, spaced.config, spaced.workdir)
  assert figures["f1"] == figures["accuracy"] == figures["macro_f1"] == 1
  assert "validation_f1" in (spaced.workdir / "metrics.csv").read_text()


def write(path, rng, count):
  """Words that end in x are X, the others Y; every one is new."""
  lines = []
  for _ in range(count):
    for _ in range(rng.randint(1, 12)):
      word = "".join(rng.choices("abcdefgh", k=6)) + rng.choice("xy")
      lines.append(f"{word} {word[-1].upper()}\n")
    lines.append("\n")
  path.write_text("".join(lines))
  return str(path)


def test_characters_tell_of_words_never_seen(tmp_path, capsys):
  rng = random.Random(2)
  fields = {f"data.{s}_path": None for s in ("train", "validation", "test")}
  for name in fields:
    fields[name] = write(tmp_path / name, rng, 60)
  fields |= {
    "task": "tagging",
    "data.path": None,
    "data.format": "columns",
    "data.unit": "word",
    "model.embedding_size": 4,
    "model.letters": 6,
    "model.symbol_dropout": 0.5,
    "optimizer.learning_rate": 0.03,
    "train.epochs": 3,
  }
  config = tiny(tmp_path, fields)
  fit.fit(experiments.build, config, tmp_path / "run")
  with (tmp_path / "run" / "metrics.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert float(rows[-1]["validation_accuracy"]) > 0.98
  config.predict.text = "newx oldy"
  predict.run(experiments.build, config, tmp_path / "run")
  assert "tags by probability" in capsys.readouterr().out
  with (tmp_path / "run" / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [row["label_1"] for row in rows] == ["X", "Y"]


def sentences(rng, count, kinds):
  """Names, which a word in capitals begins; the tags of one are a span."""
  lines = []
  for _ in range(count):
    for _ in range(rng.randint(1, 4)):
      lines += [f"{rng.choice(['a', 'the', 'of'])} O"] * rng.randint(0, 2)
      kind = rng.choice(kinds)
      lines.append(f"{kind}{rng.randint(0, 3)} B-{kind}")
      lines += [f"{kind.lower()} I-{kind}"] * rng.randint(0, 2)
    lines.append("")
  return "\n".join(lines)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
  """Has learned two kinds of spans a little; its test split has a third one."""
  folder, rng = tmp_path_factory.mktemp("spans"), random.Random(4)
  fields = {}
  for split, kinds in (("train", "PQ"), ("validation", "PQ"), ("test", "PQR")):
    (folder / split).write_text(sentences(rng, 40, [*kinds]))
    fields[f"data.{split}_path"] = str(folder / split)
  fields |= {
    "task": "tagging",
    "data.path": None,
    "data.format": "columns",
    "data.unit": "word",
    "optimizer.learning_rate": 0.02,
    "train.epochs": 2,
  }
  config = tiny(folder, fields)
  fit.fit(experiments.build, config, folder / "run")
  return experiments.load(folder / "run")


def predicted(run, **settings):
  """The rows of predictions.csv, sequence by sequence."""
  config = run.config.copy_and_resolve_references()
  config.predict.update(settings)
  predict.run(experiments.build, config, run.workdir)
  with (run.workdir / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  found = {}
  for row in rows:
    found.setdefault(row["sequence"], []).append(row)
  return list(found.values())


def test_predictions_give_the_figures_that_evaluation_gives(tagger):
  rows = predicted(tagger, split="test", sequences=10**6)
  both = true = guessed = right = total = 0
  for sequence in rows:
    a, b = (
      set(spans([row[name] for row in sequence]))
      for name in ("truth", "label_1")
    )
    both, true, guessed = both + len(a & b), true + len(a), guessed + len(b)
    right += sum(row["truth"] == row["label_1"] for row in sequence)
    total += len(sequence)
    for row in sequence:
      assert (row["surprisal_nats"] == "inf") == (row["truth"][2:] == "R")
  tags = [row["truth"] for sequence in rows for row in sequence]
  assert "I-R" in tags and 0 < both < true
  figures = tagger.evaluate("test")
  assert figures["f1"] == pytest.approx(2 * both / (true + guessed), rel=1e-6)
  assert figures["recall"] == pytest.approx(both / true, rel=1e-6)
  assert figures["accuracy"] == pytest.approx(right / total, rel=1e-6)


@pytest.mark.parametrize(
  ("content", "truth"),
  [
    ("a O\nZebra B-P\n\nthe O\n", [["O", "B-P"], ["O"]]),
    ("a\nZebra\n\n\nthe", [["", ""], [""]]),
  ],
)
def test_a_file_is_tagged_as_those_of_training(
  tagger, tmp_path, capsys, content, truth
):
  (tmp_path / "f").write_text(content)
  rows = predicted(tagger, path=str(tmp_path / "f"))
  words = [["a", "Zebra"], ["the"]]
  assert [[row["input"] for row in sequence] for sequence in rows] == words
  assert [[row["truth"] for row in sequence] for sequence in rows] == truth
  out, err = capsys.readouterr()
  assert "Zebra" in out and "<unknown>" not in out
  assert err == f"{tmp_path / 'f'}: read as unknown: 'Zebra'\n"


def test_a_plain_text_has_a_sentence_a_line(tagger, tmp_path):
  (tmp_path / "f").write_text("a  P1 p\n\nthe Zebra\n")
  with pytest.raises(UserError, match="f:1: has 3 .*; data.format=text reads"):
    predicted(tagger, path=str(tmp_path / "f"))
  config = tagger.config.copy_and_resolve_references()
  config.data.format = "text"
  words = [["a", "P1", "p"], ["the", "Zebra"]]
  for run, how in (
    (tagger._replace(config=config), {"path": str(tmp_path / "f")}),
    (tagger, {"text": "a P1 p\nthe Zebra"}),
  ):
    rows = predicted(run, **how)
    assert [[row["input"] for row in sequence] for sequence in rows] == words
    assert {row["truth"] for sequence in rows for row in sequence} == {""}


@pytest.fixture
def words(tmp_path):
  """Fields for words with tags, read by their characters, too."""
  return {
    "task": "tagging",
    "data.path": write(tmp_path / "f", random.Random(3), 50),
    "data.format": "columns",
    "data.unit": "word",
    "data.window": 6,
    "model.embedding_size": 4,
    "model.letters": 3,
  }


@pytest.mark.parametrize("buckets", [None, 2])
def test_tags_and_letters_stand_where_their_symbols_do(
  tmp_path, words, buckets
):
  config = tiny(tmp_path, {**words, "data.buckets": buckets})
  experiment = experiments.build(config, None)
  symbols, labels = (experiment.vocabularies[n] for n in ("symbols", "labels"))
  letters = sorted({*"".join(symbols.symbols)})
  count, widths = 0, set()
  for batch in experiment.batches("train", 0):
    widths.add(batch["inputs"].shape[1])
    for place in np.argwhere(batch["weights"]):
      [word] = symbols.names(batch["inputs"][tuple(place)][None])
      [tag] = labels.names(batch["targets"][tuple(place)][None])
      spelled = batch["letters"][tuple(place)]
      spelled = "".join(letters[i - 4] for i in spelled if i)
      assert word[-1].upper() == tag and spelled == word
      count += 1
  assert len(widths) == (buckets or 1)
  facts = experiment.facts("train")
  assert count == facts["symbols"] - 2 * facts["documents"]
  [batch] = experiment.batches(from_text("ax b", "word"), 0)
  assert (batch["targets"][batch["weights"] > 0] == UNKNOWN).all()


def test_regularisers_are_of_the_training_loss_alone(tmp_path, words):
  losses, totals = [], []
  for share in (0.0, 0.5):
    names = "model.activation_penalty", "model.change_penalty"
    fields = dict.fromkeys((*names, "train.label_smoothing"), share)
    experiment = experiments.build(tiny(tmp_path, {**words, **fields}), None)
    params = jax.jit(experiment.init)(jax.random.key(0))
    batch = experiment.batches("train", 0)[0]
    one = jax.jit(experiment.loss)(params, (), batch, jax.random.key(1))
    losses.append(float(one[0]))
    totals.append(one[1][1])
  assert losses[1] > losses[0] + 1e-3
  for a, b in zip(*map(jax.tree.leaves, totals), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  ("changes", "rule"),
  [
    ({"data.format": "text"}, "gives no tags, which task='tagging' needs"),
    ({"data.stateful": True}, "data.stateful=True with task='tagging'"),
    ({"data.repeats": "weight"}, "data.repeats='weight' with task='tagging'"),
    ({"model.letters": 4}, "model.letters=4: needs data.unit=word"),
  ],
)
def test_what_it_cannot_do_is_told(tmp_path, changes, rule):
  fields = {"task": "tagging", "data.format": "spaces", **changes}
  with pytest.raises(UserError, match=rule):
    experiments.build(tiny(tmp_path, fields), None)
