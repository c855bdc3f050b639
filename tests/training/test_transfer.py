"""A run that starts from another one: its parts, and that it resumes."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.read.affixes import affix_vocabulary
from seqrnn.data.vocabulary import RESERVED
from seqrnn.errors import UserError
from seqrnn.models import network
from seqrnn.runtime import sharding
from seqrnn.training import optimizers, setup, train, transfer
from seqrnn.training.transfer import Place
from tests.conftest import tiny
from tests.modes.test_train import Crash, assert_same_run, crash_at

WORDS = ["ab", "ba", "cab", "abba", "bad", "dab", "ace", "dace", "fade", "deaf"]


def texts(folder: Path, words, seed=0) -> Path:
  """A table of labelled texts: whether the first word comes early."""
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  lines = []
  for _ in range(60):
    chosen = rng.choice(words, 8)
    lines.append(f"{'xy'[int(chosen[0] > 'b')]}\t{' '.join(chosen)}")
  path = folder / "texts.tsv"
  path.write_text("\n".join(lines) + "\n", "utf-8")
  return path


COMMON = {
  "data.unit": "word",
  "model.embedding_size": 6,
  "data.split": "documents",
  "train.max_steps": 3,
}


def config_of(tmp_path, task, words=WORDS, **fields) -> Any:
  labelled = task == "classification"
  path = texts(tmp_path / f"{len(words)}", words)
  chosen = {
    "task": task,
    "data.path": str(path),
    "data.format": "tab",
    "model.layers": 2,
    **COMMON,
    **({"model.bidirectional": True} if labelled else {}),
  }
  return tiny(tmp_path, chosen | fields)


def params_of(workdir):
  return experiments.load(workdir).params


def assert_equal(a, b):
  same = jax.tree.map(np.array_equal, a, b)
  assert all(jax.tree.leaves(same))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A language model and a gap model with all heads, of the same words."""
  folder = tmp_path_factory.mktemp("trained")
  config = config_of(folder, "language_model")
  train.fit(experiments.build, config, folder / "lm")
  config = config_of(folder, "gap_model", **{"model.heads": "all"})
  train.fit(experiments.build, config, folder / "gap")
  return folder


# An epoch has 12 steps.
CLASSIFIER = {
  "train.max_steps": 12,
  "train.eval_every": 3,
  "train.freeze": "taken",
  "optimizer.layer_decay": 0.5,
  "checkpoint.keep": 9,
  "model.dropout": 0.2,
}


@pytest.fixture(scope="module")
def classifier(trained, tmp_path_factory):
  """A classifier that has started from the gap model."""
  folder = tmp_path_factory.mktemp("classifier")
  config = config_of(folder, "classification", **CLASSIFIER)
  config.train.start_from = str(trained / "gap")
  train.fit(experiments.build, config, folder / "run")
  return folder / "run"


def start(
  trained, name, tmp_path, task="classification", words=WORDS, **fields
):
  """The start of a run from one of `trained`, and its initial parameters."""
  config = config_of(tmp_path, task, words, **fields)
  config.train.start_from = str(trained / name)
  settled = setup.settle(experiments.build, config, tmp_path / "run")
  fresh = jax.device_get(settled.experiment.init(jax.random.key(0)))
  [values] = settled.values
  return settled, fresh, values(fresh)


def test_a_classifier_takes_the_tower_of_a_language_model(trained, tmp_path):
  settled, fresh, initial = start(trained, "lm", tmp_path)
  old = params_of(trained / "lm")
  layers = "layer 1 forward", "layer 2 forward"
  assert settled.record.taken == ["embedding", *layers]
  assert settled.record.new == ["layer 1 backward", "layer 2 backward", "head"]
  assert settled.record.left == ["forward head"]
  for new in ("layers_0", "layers_1"):
    assert_equal(
      initial["body"][new]["backward"], fresh["body"][new]["backward"]
    )
  assert_equal(initial["head"], fresh["head"])
  # The forward half of the layers' outputs is what the tower computes.
  tower: Any = network.stack(settled.config.model, None)
  both: Any = network.stack(settled.config.model, None, bidirectional=True)
  ids = np.random.default_rng(0).integers(0, 14, (3, 5))
  x = np.asarray(old["embedding"]["embedding"])[ids]
  x = jnp.asarray(x)
  mask = jnp.ones((3, 5), bool)
  _, one = tower.apply({"params": old["body"]}, x, mask, tower.initial_carry(3))
  _, two = both.apply(
    {"params": initial["body"]}, x, mask, both.initial_carry(3)
  )
  np.testing.assert_allclose(two[..., :8], one, atol=1e-6)


def test_a_classifier_takes_both_towers_of_a_gap_model(trained, tmp_path):
  settled, _, initial = start(trained, "gap", tmp_path)
  old = params_of(trained / "gap")["body"]
  assert settled.record.new == ["head"]
  for way in ("forward", "backward"):
    cell = initial["body"]["layers_0"][way]["cell"]
    assert_equal(cell, old[way]["tower"]["layers_0"]["cell"])
  kernels = [
    initial["body"]["layers_1"][way]["cell"]["input_kernel"]["kernel"]
    for way in ("forward", "backward")
  ]
  own = [
    old[way]["tower"]["layers_1"]["cell"]["input_kernel"]["kernel"]
    for way in ("forward", "backward")
  ]
  zeros = np.zeros_like(own[0])
  assert_equal(kernels[0], np.concatenate([own[0], zeros]))
  assert_equal(kernels[1], np.concatenate([zeros, own[1]]))


def test_heads_of_symbols_go_where_they_read_the_same(trained, tmp_path):
  settled, _, initial = start(trained, "gap", tmp_path, "language_model")
  old = params_of(trained / "gap")
  assert_equal(initial["head"], old["forward_head"])
  assert "joint head" in settled.record.left
  assert not settled.record.new
  (tmp_path / "b").mkdir()
  fields = {"model.heads": "all"}
  settled, fresh, initial = start(
    trained, "lm", tmp_path / "b", "gap_model", **fields
  )
  assert_equal(initial["forward_head"], params_of(trained / "lm")["head"])
  assert_equal(initial["backward_head"], fresh["backward_head"])
  assert "joint head" in settled.record.new


def test_rows_are_found_by_their_symbols(trained, tmp_path, capsys):
  words = [*WORDS[:3], "new", "more"]
  settled, _, initial = start(trained, "lm", tmp_path, words=words)
  assert "knows 3 of the 5 symbols of the training split, 60.0%; its" in (
    capsys.readouterr().out
  )
  own = settled.experiment.vocabularies["symbols"]
  assert settled.record.partly == {"embedding": "10 of 12 symbols"}
  assert settled.record.new_rows == {
    "symbols": sorted(own.encode(["new", "more"]).tolist())
  }
  old = experiments.load(trained / "lm").experiment.vocabularies["symbols"]
  # The classifier can read all that the language model can.
  assert {*own.symbols} == {*words, *WORDS}
  table = params_of(trained / "lm")["embedding"]["embedding"]
  rows = initial["embedding"]["embedding"]
  for symbol in WORDS:
    assert_equal(rows[own.encode([symbol])], table[old.encode([symbol])])
  assert_equal(rows[: len(RESERVED)], table[: len(RESERVED)])
  mean, spread = table[4:].mean(0), table[4:].std(0)
  for row in rows[own.encode(["new", "more"])]:
    assert (np.abs(row - mean) < 0.5 * spread).all()
    assert (row != mean).all()
  assert not np.array_equal(*rows[own.encode(["new", "more"])])
  # A language model has only the symbols of its own training split.
  (tmp_path / "b").mkdir()
  task = "language_model"
  settled, _, initial = start(trained, "lm", tmp_path / "b", task, words)
  own = settled.experiment.vocabularies["symbols"]
  assert {*own.symbols} == {*words}
  ids = own.encode(words[:3]), old.encode(words[:3])
  kernel = params_of(trained / "lm")["head"]["kernel"]
  assert_equal(initial["head"]["kernel"][:, ids[0]], kernel[:, ids[1]])


def test_a_killed_run_resumes_without_the_run_it_started_from(
  trained, classifier, tmp_path, monkeypatch
):
  shutil.copytree(trained / "gap", tmp_path / "gap")
  config = config_of(tmp_path, "classification", **CLASSIFIER)
  config.train.start_from = str(tmp_path / "gap")
  with monkeypatch.context() as patch:
    crash_at(patch, 5)
    with pytest.raises(Crash):
      train.fit(experiments.build, config, tmp_path / "killed")
  shutil.rmtree(tmp_path / "gap")
  train.fit(experiments.build, config, tmp_path / "killed")
  assert_same_run(classifier, tmp_path / "killed", 12)
  record = json.loads((tmp_path / "killed" / "start.json").read_text())
  assert record["workdir"] == str(tmp_path / "gap")
  assert record["new"] == ["head"]
  assert len(record["sha256"]) == 64


def test_parts_that_were_taken_stay_and_the_head_learns(trained, classifier):
  old, new = params_of(trained / "gap"), experiments.load(classifier, 12).params
  assert_equal(new["embedding"], old["embedding"])
  for layer in ("layers_0", "layers_1"):
    for way in ("forward", "backward"):
      kernels = (
        body[layer][way]["cell"]["recurrent_kernel"]
        if way in body[layer]
        else body[way]["tower"][layer]["cell"]["recurrent_kernel"]
        for body in (new["body"], old["body"] | {layer: {}})
      )
      assert np.array_equal(*kernels)
  heads = (experiments.load(classifier, n).params["head"] for n in (3, 12))
  assert not np.array_equal(*(head["kernel"] for head in heads))


def test_labels_are_found_by_name(classifier, tmp_path, monkeypatch):
  # Of several processes the first one says which checkpoint all read.
  monkeypatch.setattr(sharding, "broadcast", lambda _: 3)
  old = experiments.load(classifier, 3)
  config = config_of(tmp_path, "classification")
  path = Path(config.data.path)
  path.write_text(path.read_text().replace("x\t", "z\t"))
  config.train.start_from = str(classifier)
  settled = setup.settle(experiments.build, config, tmp_path / "new")
  fresh = jax.device_get(settled.experiment.init(jax.random.key(0)))
  initial = settled.values[0](fresh)["head"]
  names = settled.experiment.vocabularies["labels"].symbols
  assert {*names} == {"y", "z"}
  was = old.experiment.vocabularies["labels"].symbols.index("y")
  kernel = old.params["head"]["kernel"]
  y, z = (initial["kernel"][:, names.index(name)] for name in "yz")
  assert_equal(y, kernel[:, was])
  assert not np.isin(z, kernel).any()
  taken = "embedding, layer 1 forward, layer 1 backward, layer 2 forward, layer"
  line = f"  taken: {taken} 2 backward, head (1 of 2 labels)"
  assert [*settled.record.lines()][1] == line
  # Nothing but the new label learns.
  config.train.freeze = "taken"
  learns = optimizers.shares(settled.experiment, config, settled.record).learns
  assert learns["head"]["bias"].tolist() == [name == "z" for name in names]
  assert learns["head"]["kernel"].shape == (1, 2)
  assert jax.tree.leaves(learns["body"]) == [False] * 12


def test_a_tagger_takes_affixes_by_name_and_a_crf_of_the_same_tags(tmp_path):
  def config_with(name, tags):
    words = [*WORDS, name, f"{name}s", f"{name}ing"]
    folder = tmp_path / name
    folder.mkdir()
    rows = [f"{w} {tags[n % 2]}" for n, w in enumerate(words)]
    path = folder / "words.txt"
    path.write_text("\n\n".join(rows * 9) + "\n", "utf-8")
    fields = {
      "task": "tagging",
      "data.path": str(path),
      "data.format": "columns",
      "model.affixes": 2,
      "model.crf": True,
    }
    return tiny(tmp_path, COMMON | fields)

  first, second = config_with("zebra", "AB"), config_with("ebony", "AB")
  workdir = tmp_path / "first"
  train.fit(experiments.build, first, workdir)
  old = params_of(workdir)
  second.train.start_from = str(workdir)
  settled = setup.settle(experiments.build, second, tmp_path / "second")
  initial = settled.values[0](
    jax.device_get(settled.experiment.init(jax.random.key(0)))
  )
  assert {"letters", "crf"} <= {*settled.record.taken}
  assert_equal(initial["crf"], old["crf"])
  rows = [
    {
      affix: row
      for affix, row in zip(
        affix_vocabulary(run.vocabularies["symbols"].symbols, 2).symbols,
        np.asarray(params["letters"]["affixes"])[len(RESERVED) :],
        strict=True,
      )
    }
    for run, params in (
      (experiments.load(workdir).experiment, old),
      (settled.experiment, initial),
    )
  ]
  common = rows[0].keys() & rows[1].keys()
  assert len(common) > 3 and [*rows[0]] != [*rows[1]]
  assert all(np.array_equal(rows[0][name], rows[1][name]) for name in common)
  # Tags in another order, of which one is new.
  other = config_with("third", "CA")
  other.train.start_from = str(workdir)
  settled = setup.settle(experiments.build, other, tmp_path / "third")
  fresh = jax.device_get(settled.experiment.init(jax.random.key(0)))
  crf = settled.values[0](fresh)["crf"]
  assert settled.record.partly["crf"] == "1 of 2 labels"
  new: Any = transfer.rows_to_learn(Place("crf"), (2, 2), settled.record)
  own, known = (
    [*experiment.vocabularies["labels"].symbols]
    for experiment in (settled.experiment, experiments.load(workdir).experiment)
  )
  for row, column in itertools.product(range(2), repeat=2):
    names = own[row], own[column]
    expected = 0.0
    assert new[row, column] == ("C" in names)
    if "C" not in names:
      at = tuple(map(known.index, names))
      expected = np.asarray(old["crf"]["transitions"])[at]
    assert crf["transitions"][row, column] == expected


def test_what_does_not_fit_is_refused_in_a_line(trained, tmp_path):
  def refused(words, start_from=trained / "lm", **fields):
    config = config_of(tmp_path, **{"task": "classification", **fields})
    config.train.start_from = str(start_from)
    with pytest.raises(UserError) as error:
      setup.settle(experiments.build, config, tmp_path / "run")
    assert words in str(error.value)
    assert str(error.value).startswith("config.train.start_from=")

  refused(
    "has model.cell='lstm', and this run has 'gru'", **{"model.cell": "gru"}
  )
  refused(
    "no part fits: it has data.unit='word', not 'char'", **{"data.unit": "char"}
  )
  refused("has no run", tmp_path / "nothing")
  shutil.copytree(trained / "lm", tmp_path / "run")
  task = {"task": "language_model", "model.bidirectional": False}
  refused("has a run that started from nothing", **task)
