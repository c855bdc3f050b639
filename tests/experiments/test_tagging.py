"""Tagging: spans, spaces, words by their characters, and tables."""

import csv
import itertools
import random
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.errors import UserError
from seqrnn.modes import evaluate, predict
from seqrnn.runtime import sharding
from seqrnn.training import train
from tests.conftest import tiny
from tests.scoring.test_spans import bio as spans


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
  """Has learned that a space follows each `.`, and nothing else."""
  folder = tmp_path_factory.mktemp("spaces")
  rng = random.Random(1)
  for n in range(8):
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
  train.fit(experiments.build, config, folder / "run")
  return experiments.load(folder / "run")


def test_spaces_are_restored(spaced, capsys):
  config = spaced.config
  path = spaced.workdir.parent / "unspaced"
  path.write_text("ab.c. cabba.cab.b")
  config.predict.path = str(path)
  predict.run(experiments.build, config, spaced.workdir)
  config.predict.path = None
  config.predict.text = "ab.c. cabba.cab.b"
  predict.run(experiments.build, config, spaced.workdir)
  config.predict.text = None
  out, err = capsys.readouterr()
  assert out.count("restored: ab. c. cabba. cab. b\n") == 2
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


def test_letters_predict_the_tags_of_unseen_words(tmp_path, capsys):
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
  train.fit(experiments.build, config, tmp_path / "run")
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
  train.fit(experiments.build, config, folder / "run")
  return experiments.load(folder / "run")


def columns(run):
  """The texts of predictions.conll, each a list of lines, split."""
  content = (run.workdir / "predictions.conll").read_text()
  assert content.endswith("\n\n")
  texts = content.removesuffix("\n\n").split("\n\n")
  return [[line.split(" ") for line in text.split("\n")] for text in texts]


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


@pytest.fixture(scope="module")
def chained(tagger, tmp_path_factory):
  """Like `tagger`, with a CRF, and windows that cut its sentences."""
  config = tagger.config.copy_and_resolve_references()
  config.model.crf, config.data.window, config.train.epochs = True, 6, 1
  folder = tmp_path_factory.mktemp("chain")
  train.fit(experiments.build, config, folder / "run")
  return experiments.load(folder / "run")


def test_a_chain_predicts_sequences_that_its_scheme_allows(chained):
  rows = predicted(chained, split="test", sequences=10**6, top_k=6)
  right = total = moved = both = all_spans = cut = 0
  for sequence in rows:
    tags = [row["label_1"] for row in sequence]
    for row, (before, tag) in zip(
      sequence[1:], itertools.pairwise(tags), strict=True
    ):
      begins = int(row["position"]) % chained.config.data.window == 0
      assert begins or tag[0] != "I" or before[1:] == tag[1:]
    right += sum(row["truth"] == row["label_1"] for row in sequence)
    total += len(sequence)
    # Spans are those of the text, also where a window ends.
    truth = [row["truth"] for row in sequence]
    a, b = set(spans(truth)), set(spans(tags))
    both, all_spans = both + len(a & b), all_spans + len(a) + len(b)
    ends = {
      n for n, x in enumerate(sequence) if int(x["position"]) % 6 == 0 and n
    }
    cut += sum(first < n <= last for first, last, _ in a for n in ends)
    for row in sequence:  # Probabilities are marginals.
      shares = [float(row[f"probability_{n}"]) for n in range(1, 6)]
      assert sum(shares) == pytest.approx(1, abs=1e-4)
      moved += shares[0] < max(shares)
  assert cut > 0 and both > 0
  test = Path(chained.config.data.test_path).read_text().strip("\n")
  found = columns(chained)
  lines = "\n\n".join("\n".join(f"{w} {t}" for w, t, _ in x) for x in found)
  assert lines == re.sub("\n{2,}", "\n\n", test)
  best = [row["label_1"] for sequence in rows for row in sequence]
  assert best == [line[-1] for text in found for line in text]
  figures = evaluate.run(experiments.build, chained.config, chained.workdir)
  assert figures["accuracy"] == pytest.approx(right / total, rel=1e-6)
  assert figures["f1"] == pytest.approx(2 * both / all_spans, rel=1e-6)
  assert 0 < moved < total / 2  # The best sequence is not of the best tags.
  with (chained.workdir / "spans.csv").open() as file:
    table = {row["type"]: row for row in csv.DictReader(file)}
  assert table.keys() == {"all", "P", "Q", "<unknown>"}
  assert float(table["all"]["f1"]) == pytest.approx(figures["f1"], abs=1e-6)


def test_a_chain_knows_where_its_sentences_begin_and_end(chained):
  experiment = chained.experiment
  documents = {}
  for batch in experiment.batches("train", 0, ordered=True, named=True):
    for row, document in enumerate(batch["document"].tolist()):
      if batch["weights"][row].any():
        edges = bool(batch["begins"][row]), bool(batch["ends"][row])
        documents.setdefault(document, []).append(edges)
  assert {len(edges) for edges in documents.values()} >= {1, 2}
  for edges in documents.values():
    firsts, lasts = zip(*edges, strict=True)
    assert firsts == (True, *[False] * (len(edges) - 1))
    assert lasts[-1] and not any(lasts[:-1])


def test_a_chain_on_four_devices_has_the_loss_of_one(chained):
  loss, params = chained.experiment.loss, jax.device_get(chained.params)
  batch = chained.experiment.batches("train", 0)[0]
  mesh = sharding.mesh()
  assert mesh.size == len(batch["inputs"]) == 4
  placed = sharding.put(batch, 4, mesh)
  alone = jax.jit(loss)(params, (), batch, None)
  split = sharding.jit(lambda *x: loss(*x, None), mesh)(params, (), placed)
  for a, b in zip(*map(jax.tree.leaves, (alone, split)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)


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
  assert "Zebra" in out and "<unknown>" not in out and "more" not in out
  assert err == f"{tmp_path / 'f'}: read as unknown: 'Zebra'\n"
  lines = [
    [
      [row["input"], *[row["truth"]] * (row["truth"] != ""), row["label_1"]]
      for row in sequence
    ]
    for sequence in rows
  ]
  assert columns(tagger) == lines


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


@pytest.mark.parametrize(
  ("changes", "rule"),
  [
    ({"data.format": "files"}, "data.format='files' has no tags; it needs"),
    ({"data.stateful": True}, "data.stateful=True with task='tagging'"),
    ({"model.letters": 4}, "model.letters=4: needs data.unit=word"),
  ],
)
def test_settings_that_are_refused(tmp_path, changes, rule):
  fields = {"task": "tagging", "data.format": "spaces", **changes}
  with pytest.raises(UserError, match=rule):
    experiments.build(tiny(tmp_path, fields), None)
