"""Tagging: spans, spaces, words by their characters, and tables."""

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
from seqrnn.models import crf
from seqrnn.modes import evaluate, predict
from seqrnn.run import load_run
from seqrnn.scoring.predictions import predictions
from seqrnn.training import train
from tests.conftest import random_params, read_csv, tiny
from tests.scoring.test_spans import bio as spans


def predicted(run, **settings):
  """The rows of predictions.csv, sequence by sequence."""
  config = run.config.copy_and_resolve_references()
  config.predict.update(settings)
  predict.run(experiments.build, config, run.workdir)
  rows = read_csv(run.workdir / "predictions.csv")
  groups = itertools.groupby(rows, lambda row: row["sequence"])
  return [list(group) for _, group in groups]


def column(rows, name):
  return [[row[name] for row in sequence] for sequence in rows]


def test_spaces_are_restored(tmp_path, capsys):
  """It learns that a space follows each `.`, and nothing else."""
  rng, folder = random.Random(1), tmp_path / "texts"
  folder.mkdir()
  for n in range(8):
    words = [
      "".join(rng.choices("abc", k=rng.randint(1, 5))) for _ in range(40)
    ]
    (folder / f"{n}.txt").write_text(". \n".join(words))
  fields = {
    "task": "tagging",
    "data.format": "spaces",
    "data.path": str(folder / "*.txt"),
    "model.cell": "rnn_tanh",
    "optimizer.learning_rate": 0.05,
    "train.epochs": 2,
  }
  train.fit(experiments.build, tiny(tmp_path, fields), tmp_path / "run")
  run = load_run(tmp_path / "run")
  path, text = tmp_path / "unspaced", "ab.c. cabba.cab.b"
  path.write_text(text)
  capsys.readouterr()
  predicted(run, path=str(path))
  [row] = predicted(run, text=text)
  out, err = capsys.readouterr()
  assert out.count("restored: ab. c. cabba. cab. b\n") == 2
  assert not err  # The space is no symbol, so none that is unknown.
  assert "".join(r["input"] for r in row) == text.replace(" ", "")
  assert {r["truth"] for r in row} == {""}
  for r in row:
    assert r["label_1"] == ("space" if r["input"] == "." else "none")
  figures = evaluate.run(experiments.build, run.config, run.workdir)
  assert figures["f1"] == figures["accuracy"] == figures["macro_f1"] == 1
  assert "validation_f1" in (run.workdir / "metrics.csv").read_text()


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
def chained(tmp_path_factory):
  """Has learned two kinds of spans a little; its test split has a third one.

  It has a CRF, reads the affixes of words, and its windows cut sentences.
  """
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
    "data.window": 6,
    "model.cell": "rnn_tanh",
    "model.crf": True,
    "model.embedding_size": 4,
    "model.affixes": 2,
    "model.symbol_dropout": 0.5,
    "optimizer.learning_rate": 0.03,
    "train.epochs": 2,
  }
  train.fit(experiments.build, tiny(folder, fields), folder / "run")
  return load_run(folder / "run")


def test_a_chain_predicts_sequences_that_its_scheme_allows(chained):
  rows = predicted(chained, split="test", sequences=10**6, top_k=6)
  right = total = both = true = guessed = cut = 0
  for sequence in rows:
    [truth], [tags] = (column([sequence], n) for n in ("truth", "label_1"))
    ends = [
      n for n, r in enumerate(sequence) if n and int(r["position"]) % 6 == 0
    ]
    for n, (before, tag) in enumerate(itertools.pairwise(tags), 1):
      assert n in ends or tag[0] != "I" or before[1:] == tag[1:]
    right += sum(map(str.__eq__, truth, tags))
    total += len(sequence)
    # Spans are those of the text, also where a window ends.
    a, b = set(spans(truth)), set(spans(tags))
    both, true, guessed = both + len(a & b), true + len(a), guessed + len(b)
    cut += sum(first < n <= last for first, last, _ in a for n in ends)
    for row in sequence:  # Probabilities are marginals.
      shares = [float(row[f"probability_{n}"]) for n in range(1, 6)]
      assert sum(shares) == pytest.approx(1, abs=1e-4)
      assert (row["surprisal_nats"] == "inf") == (row["truth"][2:] == "R")
  assert cut > 0 and 0 < both < true
  test = Path(chained.config.data.test_path).read_text().strip("\n")
  pairs = [[f"{row['input']} {row['truth']}" for row in x] for x in rows]
  lines = "\n\n".join(map("\n".join, pairs))
  assert lines == re.sub("\n{2,}", "\n\n", test)
  figures = evaluate.run(experiments.build, chained.config, chained.workdir)
  assert figures["accuracy"] == pytest.approx(right / total, rel=1e-6)
  assert figures["f1"] == pytest.approx(2 * both / (true + guessed), rel=1e-6)
  assert figures["recall"] == pytest.approx(both / true, rel=1e-6)
  table = {row["type"]: row for row in read_csv(chained.workdir / "spans.csv")}
  assert table.keys() == {"all", "P", "Q", "<unknown>"}
  assert float(table["all"]["f1"]) == pytest.approx(figures["f1"], abs=1e-6)


def test_a_chain_is_decoded_in_evaluations_and_not_in_training(
  chained, monkeypatch
):
  rows = read_csv(chained.workdir / "metrics.csv")
  best = min(rows, key=lambda row: float(row["validation_loss"]))
  assert not {"train_accuracy", "train_macro_f1"} & best.keys()
  experiment, right = chained.experiment, []
  for p in predictions(experiment, chained.params, "validation", 1):
    right += map(str.__eq__, p.truth, p.best)
  accuracy = pytest.approx(np.mean(right), rel=1e-6)
  assert float(best["validation_accuracy"]) == accuracy
  assert 0 < float(best["validation_macro_f1"]) < 1

  def refuse(*_):
    raise AssertionError("a step of training decodes")

  monkeypatch.setattr(crf, "viterbi", refuse)
  batch = experiment.batches("train", 0)[0]
  jax.eval_shape(
    experiment.loss,
    chained.params,
    experiment.carry(4),
    batch,
    jax.random.key(0),
  )


def test_the_best_sequence_is_not_of_the_best_tags(chained):
  """Of random scores; the difference is far above a rounding error."""
  params = random_params(chained.experiment, 1)
  rows = [*predictions(chained.experiment, params, "test", 6)]
  less = [p.probabilities.max(1) - p.probabilities[:, 0] for p in rows]
  assert (np.concatenate(less) > 0.01).sum() > 3


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


@pytest.mark.parametrize(
  ("content", "truth"),
  [
    ("a O\nP9 B-P\n\nthe O\n", [["O", "B-P"], ["O"]]),
    ("a\nP9\n\n\nthe", [["", ""], [""]]),
  ],
)
def test_a_file_is_tagged_as_those_of_training(
  chained, tmp_path, capsys, content, truth
):
  (tmp_path / "f").write_text(content)
  rows = predicted(chained, path=str(tmp_path / "f"))
  assert column(rows, "input") == [["a", "P9"], ["the"]]
  assert column(rows, "truth") == truth
  # The word is new; its prefix is known.
  assert column(rows, "label_1") == [["O", "B-P"], ["O"]]
  out, err = capsys.readouterr()
  assert "P9" in out and "<unknown>" not in out and "more" not in out
  assert err == f"{tmp_path / 'f'}: read as unknown: 'P9'\n"


def test_a_plain_text_has_a_sentence_a_line(chained, tmp_path):
  (tmp_path / "f").write_text("a  P1 p\n\nthe Zebra\n")
  with pytest.raises(
    UserError, match="f:1: has 3 columns; data.format=columns needs"
  ):
    predicted(chained, path=str(tmp_path / "f"))
  config = chained.config.copy_and_resolve_references()
  config.data.format = "text"
  for run, how in (
    (chained._replace(config=config), {"path": str(tmp_path / "f")}),
    (chained, {"text": "a P1 p\nthe Zebra"}),
  ):
    rows = predicted(run, **how)
    assert column(rows, "input") == [["a", "P1", "p"], ["the", "Zebra"]]
    assert column(rows, "truth") == [[""] * 3, [""] * 2]


def test_tags_and_letters_stand_where_their_symbols_do(chained):
  config = chained.config.copy_and_resolve_references()
  config.model.update(affixes=None, letters=4)
  for buckets in (None, 2):
    config.data.buckets = buckets
    experiment = experiments.build(config, None)
    symbols, labels = experiment.vocabularies["symbols"], experiment.labels
    letters = sorted({*"".join(symbols.symbols)})
    tags = {"a": "O", "the": "O", "of": "O", "p": "I-P", "q": "I-Q"}
    count, widths = 0, set()
    for batch in experiment.batches("train", 0):
      widths.add(batch["inputs"].shape[1])
      for place in np.argwhere(batch["weights"]):
        [word] = symbols.names(batch["inputs"][tuple(place)][None])
        [tag] = labels.names(batch["targets"][tuple(place)][None])
        spelled = batch["letters"][tuple(place)]
        assert "".join(letters[i - 4] for i in spelled if i) == word
        assert tag == tags.get(word, f"B-{word[0]}")
        count += 1
    assert len(widths) == (buckets or 1)
    facts = experiment.facts("train")
    assert count == facts["symbols"] - 2 * facts["documents"]
  [batch] = experiment.batches(from_text("ax b", "word"), 0)
  assert (batch["targets"][batch["weights"] > 0] == UNKNOWN).all()
