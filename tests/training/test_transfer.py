"""A run that starts from another one: its parts, and that it resumes."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.read.words import affix_vocabulary
from seqrnn.data.vocabulary import RESERVED
from seqrnn.errors import UserError
from seqrnn.models import network
from seqrnn.run import load_run
from seqrnn.runtime import sharding
from seqrnn.training import rates, train
from tests.conftest import random_params, save_run, tiny
from tests.modes.test_train import Crash, assert_same_run, build, crash_at

WORDS = ["ab", "ba", "cab", "abba", "bad", "dab", "ace", "dace", "fade", "deaf"]
COMMON = {
  "data.unit": "word",
  "model.embedding_size": 6,
  "data.split": "documents",
}


def config_of(folder, task, words=WORDS, **fields) -> Any:
  """Of labelled texts: whether the first word comes early."""
  path = folder / f"{len(words)}" / "texts.tsv"
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  texts = [rng.choice(words, 8) for _ in range(60)]
  path.write_text(
    "".join(f"{'xy'[t[0] > 'b']}\t{' '.join(t)}\n" for t in texts), "utf-8"
  )
  chosen = {
    "task": task,
    "data.path": str(path),
    "data.format": "tab",
    "model.layers": 2,
    "model.bidirectional": task == "classification",
  }
  return tiny(folder, COMMON | chosen | fields)


def params_of(workdir):
  return load_run(workdir).params


def assert_equal(a, b):
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Runs of a language model and of gap models with all heads."""
  folder = tmp_path_factory.mktemp("trained")
  save_run(config_of(folder, "language_model"), folder / "lm")
  heads = {"model.heads": "all"}
  save_run(config_of(folder, "gap_model", **heads), folder / "gap")
  heads["model.layers"] = 1
  save_run(config_of(folder, "gap_model", **heads), folder / "gap1")
  return folder


# An epoch has 12 steps.
CLASSIFIER = {
  "train.max_steps": 6,
  "train.eval_every": 3,
  "train.freeze": "taken",
  "optimizer.layer_decay": 0.5,
  "checkpoint.keep": 9,
  "model.layers": 1,
}


@pytest.fixture(scope="module")
def classifier(trained, tmp_path_factory):
  """A classifier that has started from a gap model."""
  folder = tmp_path_factory.mktemp("classifier")
  config = config_of(folder, "classification", **CLASSIFIER)
  config.train.start_from = str(trained / "gap1")
  train.fit(build, config, folder / "run")
  return folder / "run"


def start(source, config, workdir):
  """The training that starts from a run; new parameters, and the first."""
  config.train.start_from = str(source)
  training = train.make_training(build, config, workdir)
  fresh = random_params(training.experiment, 1)
  assert training.values is not None and training.record is not None
  return training, training.record, fresh, training.values(fresh)


def test_a_classifier_takes_the_tower_of_a_language_model(trained, tmp_path):
  config = config_of(tmp_path, "classification")
  training, record, fresh, initial = start(trained / "lm", config, tmp_path)
  old = params_of(trained / "lm")
  layers = "layer 1 forward", "layer 2 forward"
  assert record.taken == ["embedding", *layers]
  assert record.new == ["layer 1 backward", "layer 2 backward", "head"]
  for name in ("layers_0", "layers_1"):
    assert_equal(
      initial["body"][name]["backward"], fresh["body"][name]["backward"]
    )
  assert_equal(initial["head"], fresh["head"])
  # The forward half of the layers' outputs is what the tower computes.
  tower: Any = network.stack(training.config.model, None)
  both: Any = network.stack(training.config.model, None, bidirectional=True)
  ids = np.random.default_rng(0).integers(0, 14, (3, 5))
  x, mask = old["embedding"]["embedding"][ids], np.ones((3, 5), bool)

  @jax.jit
  def outputs(*params):
    return [
      model.apply({"params": body}, x, mask, model.initial_carry(3))[1]
      for model, body in zip((tower, both), params, strict=True)
    ]

  one, two = outputs(old["body"], initial["body"])
  np.testing.assert_allclose(two[..., :8], one, atol=1e-6)


def test_a_classifier_takes_both_towers_of_a_gap_model(trained, tmp_path):
  config = config_of(tmp_path, "classification")
  _, record, _, initial = start(trained / "gap", config, tmp_path)
  old, new = params_of(trained / "gap")["body"], initial["body"]
  assert record.new == ["head"]
  for way in ("forward", "backward"):
    tower = old[way]["tower"]
    assert_equal(new["layers_0"][way]["cell"], tower["layers_0"]["cell"])
    kernel = tower["layers_1"]["cell"]["input_kernel"]["kernel"]
    halves = [kernel, np.zeros_like(kernel)][:: 1 if way == "forward" else -1]
    assert_equal(
      new["layers_1"][way]["cell"]["input_kernel"]["kernel"],
      np.concatenate(halves),
    )


def test_heads_of_symbols_go_where_they_read_the_same(trained, tmp_path):
  config = config_of(tmp_path, "language_model")
  _, record, _, initial = start(trained / "gap", config, tmp_path)
  assert_equal(initial["head"], params_of(trained / "gap")["forward_head"])
  assert not record.new
  config = config_of(tmp_path, "gap_model", **{"model.heads": "all"})
  _, record, fresh, initial = start(trained / "lm", config, tmp_path)
  assert_equal(initial["forward_head"], params_of(trained / "lm")["head"])
  assert_equal(initial["backward_head"], fresh["backward_head"])
  assert "joint head" in record.new


def test_rows_are_found_by_their_symbols(trained, tmp_path, capsys):
  words = [*WORDS[:3], "new", "more"]
  config = config_of(tmp_path, "classification", words)
  training, record, _, initial = start(trained / "lm", config, tmp_path)
  line = "knows 3 of the 5 symbols of the training split, 60.0%\nits 7 other"
  assert line in capsys.readouterr().out
  names = training.experiment.vocabularies["symbols"]
  assert record.taken[0] == "embedding (10 of 12 symbols)"
  source = load_run(trained / "lm")
  old = source.experiment.vocabularies["symbols"]
  # The classifier can read all that the language model can.
  assert {*names.symbols} == {*words, *WORDS}
  table = source.params["embedding"]["embedding"]
  rows = initial["embedding"]["embedding"]
  assert_equal(rows[names.encode(WORDS)], table[old.encode(WORDS)])
  assert_equal(rows[: len(RESERVED)], table[: len(RESERVED)])
  mean, spread = table[4:].mean(0), table[4:].std(0)
  for row in rows[names.encode(["new", "more"])]:
    assert (np.abs(row - mean) < 0.5 * spread).all()
    assert (row != mean).all()
  assert not np.array_equal(*rows[names.encode(["new", "more"])])
  # A language model has only the symbols of its own training split.
  config = config_of(tmp_path, "language_model", words)
  training, _, _, initial = start(trained / "lm", config, tmp_path)
  names = training.experiment.vocabularies["symbols"]
  assert {*names.symbols} == {*words}
  assert_equal(
    initial["head"]["kernel"][:, names.encode(words[:3])],
    source.params["head"]["kernel"][:, old.encode(words[:3])],
  )


def test_a_killed_run_resumes_without_the_run_it_started_from(
  trained, classifier, tmp_path, monkeypatch
):
  source, killed = tmp_path / "gap", tmp_path / "killed"
  shutil.copytree(trained / "gap1", source)
  config = config_of(tmp_path, "classification", **CLASSIFIER)
  config.train.start_from = str(source)
  with monkeypatch.context() as patch:
    crash_at(patch, 5)
    with pytest.raises(Crash):
      train.fit(build, config, killed)
  shutil.rmtree(source)
  train.fit(build, config, killed)
  assert_same_run(classifier, killed, 6)
  record = json.loads((killed / "start.json").read_text())
  assert (record["workdir"], record["new"]) == (str(source), ["head"])


def test_labels_are_found_by_name(classifier, tmp_path, monkeypatch):
  # Of several processes the first one says which checkpoint all read.
  monkeypatch.setattr(sharding, "broadcast", lambda _: 3)
  old = load_run(classifier, 3)
  config = config_of(tmp_path, "classification", **{"model.layers": 1})
  path = Path(config.data.path)
  path.write_text(path.read_text().replace("x\t", "z\t"))
  training, record, _, initial = start(classifier, config, tmp_path / "new")
  names = training.experiment.vocabularies["labels"].symbols
  assert {*names} == {"y", "z"}
  was = old.experiment.vocabularies["labels"].symbols.index("y")
  kernel = old.params["head"]["kernel"]
  y, z = (initial["head"]["kernel"][:, names.index(name)] for name in "yz")
  assert_equal(y, kernel[:, was])
  assert not np.isin(z, kernel).any()
  assert str(record).split("\n")[1] == (
    "  taken: embedding, layer 1 forward, layer 1 backward, head (1 of 2"
    " labels)"
  )
  # Nothing but the head, which has a new label, learns.
  config.train.freeze = "taken"
  factors = rates.shares(training.experiment, config, record)
  assert factors.pop("head") == {"bias": 1, "kernel": 1}
  assert not any(jax.tree.leaves(factors))


def test_a_tagger_takes_affixes_by_name_and_a_crf_of_the_same_tags(tmp_path):
  def config_with(name, tags):
    words = [*WORDS, name, f"{name}s", f"{name}ing"]
    rows = [f"{w} {tags[n % 2]}" for n, w in enumerate(words)]
    path = tmp_path / f"{name}.txt"
    path.write_text("\n\n".join(rows * 9) + "\n", "utf-8")
    fields = {
      "task": "tagging",
      "data.path": str(path),
      "data.format": "columns",
      "model.affixes": 2,
      "model.crf": True,
    }
    return tiny(tmp_path, COMMON | fields)

  workdir = tmp_path / "first"
  save_run(config_with("zebra", "AB"), workdir)
  source = load_run(workdir)
  old = source.params
  config = config_with("ebony", "AB")
  training, record, _, initial = start(workdir, config, tmp_path / "second")
  assert {"letters", "crf"} <= {part.split()[0] for part in record.taken}
  assert_equal(initial["crf"], old["crf"])

  def rows_of(experiment, params):
    symbols = experiment.vocabularies["symbols"]
    rows = params["letters"]["affixes"][len(RESERVED) :]
    return dict(zip(affix_vocabulary(symbols, 2).symbols, rows, strict=False))

  first = rows_of(source.experiment, old)
  second = rows_of(training.experiment, initial)
  common = first.keys() & second.keys()
  assert len(common) > 3 and [*first] != [*second]
  assert all(np.array_equal(first[name], second[name]) for name in common)
  # Tags in another order, of which one is new.
  config = config_with("third", "CA")
  training, record, _, initial = start(workdir, config, tmp_path / "third")
  assert "crf (1 of 2 labels)" in record.taken
  of = lambda experiment: experiment.vocabularies["labels"].symbols.index
  expected, both = np.zeros((2, 2)), of(source.experiment)("A")
  both, new = (both, both), of(training.experiment)("A")
  expected[new, new] = old["crf"]["transitions"][both]
  assert_equal(initial["crf"]["transitions"], expected)


def test_layers_are_taken_with_the_convolution_that_they_read(
  trained, tmp_path
):
  wide = {"model.convolution": 3, "model.layers": 1, "data.keep": "first"}
  config = config_of(tmp_path, "classification", **wide)
  save_run(config, tmp_path / "wide")
  below = ["embedding", "convolution", "layer 1 forward", "layer 1 backward"]
  cases: Any = (
    ("gap1", wide, below[:1]),
    ("wide", wide, [*below, "head"]),
    ("wide", {**wide, "model.convolution": 4}, below[:1]),
    ("wide", {**wide, "model.convolution": None}, below[:1]),
    ("wide", {**wide, "data.unit": "char"}, "no part fits"),
  )
  faults = []
  for number, (source, fields, expected) in enumerate(cases):
    config = config_of(tmp_path, "classification", **fields)
    folder = tmp_path / source if source == "wide" else trained / source
    try:
      _, record, *_ = start(folder, config, tmp_path / f"{number}")
      if record.taken != expected:
        faults.append((number, record.taken))
    except UserError as error:
      if expected not in str(error):
        faults.append((number, str(error)))
  assert not faults


def test_a_convolution_learns_as_an_input(tmp_path):
  fields = {"model.convolution": 3, "optimizer.layer_decay": 0.5}
  for freeze, kept in ((None, 1), ("head", 1), ("convolution", 0)):
    fields["train.freeze"] = freeze
    config = config_of(tmp_path, "classification", **fields)
    experiment = experiments.build(config, None)
    factors = rates.shares(experiment, config, None)
    kernels = {
      name: x["kernel"] for name, x in factors.items() if "kernel" in x
    }
    assert kernels == {"convolution": kept / 8, "head": float(freeze != "head")}


def test_what_does_not_fit_is_refused_in_a_line(trained, tmp_path):
  for source, workdir, fields, words in (
    ("lm", "run", {"model.cell": "gru"}, "has model.cell='lstm', and this run"),
    ("lm", "run", {"data.unit": "char"}, "fits: data.unit: 'word' -> 'char'"),
    ("absent", "run", {}, "has no run"),
  ):
    config = config_of(tmp_path, "language_model", **fields)
    config.train.start_from = str(trained / source)
    with pytest.raises(
      UserError, match=r"^config\.train\.start_from="
    ) as error:
      train.make_training(build, config, tmp_path / workdir)
    assert words in str(error.value)
