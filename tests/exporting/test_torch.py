"""Exports to PyTorch: the same outputs there, the same run back."""

import functools
import json
import sys
import types
from pathlib import Path

import jax
import jinja2
import numpy as np
import pytest

import seqrnn
from seqrnn import cli, experiments
from seqrnn.errors import UserError
from seqrnn.exporting import network
from seqrnn.modes import export
from seqrnn.training.history import add_row
from seqrnn.training.transfer import Record
from tests.conftest import message_of
from tests.exporting.models import (
  FOREIGN,
  MODELS,
  SYMBOLS,
  inputs_of,
  new_model,
  predict,
  write_run,
)
from tests.scoring.oracle import lstm
from tests.templates import Recorder
from tests.test_docs import blocks

pytest.importorskip("safetensors")
PLAIN = [name for name in MODELS if "gap" not in name and name != "heads"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """A function of a name: the path of the model's file, from a run of it."""

  @functools.cache
  def once(name):
    workdir = tmp_path_factory.mktemp("run")
    start = {"train__start_from": "runs/other", "train__freeze": "taken"}
    if name == "fitted wide":
      start = {}
    experiment, config, params = write_run(workdir, name, **start)
    config = config.copy_and_resolve_references()
    return experiment, params, export.run(experiments.build, config, workdir)

  return once


@pytest.mark.parametrize("name", PLAIN)
def test_the_class_of_the_guide_gives_the_same_logits(exported, name):
  torch = pytest.importorskip("torch")
  experiment, params, path = exported(name)
  names = {}
  exec(blocks("howto/export.md")[0], names)
  model = names["Model"](path)
  music = experiment.reads != "symbol"
  inputs = inputs_of(experiment, [9, 9, 9], 88 if music else len(SYMBOLS))
  expected = predict(experiment, params, inputs)
  with torch.no_grad():
    if music:  # It reads frames, as they are.
      model.embedding = lambda x: x.float()
    found, _ = model(torch.tensor(inputs, dtype=torch.int64))
  found = found.numpy().reshape(expected.shape)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lstm", "heads", "tied gap", *FOREIGN])
def test_an_export_comes_back_to_the_bit(exported, tmp_path, name):
  _, params, path = exported(name)
  assert ("weights" in params.get("wide", {})) == (name == "fitted wide")
  run = seqrnn.from_export(path.parent, tmp_path / "again")
  # Neither the start of that run nor its step is that of the new one.
  train = run.config.train
  assert (train.start_from, train.freeze) == (None, None)
  assert json.loads((path.parent / "config.json").read_text())["checkpoint"]
  assert run.config.checkpoint.step is None
  jax.tree.map(np.testing.assert_array_equal, run.params, params)


def logits_of(state, ids):
  """The logits of an embedding, two LSTMs and a linear layer, in NumPy."""
  x_TD = state["embedding.weight"][ids]
  for depth in range(2):
    W, R, b, c = (
      state[f"lstm.{kind}_l{depth}"]
      for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    cell = {"input_kernel": {"kernel": W.T}, "recurrent_kernel": R.T}
    x_TD = lstm({**cell, "bias": b + c}, x_TD)
  return x_TD @ state["linear.weight"].T + state["linear.bias"]


def test_the_guide_puts_weights_of_torch_in(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  symbols, rng = [*"helo wrd"], np.random.default_rng(0)
  shapes = {"embedding.weight": (8, 64), "linear.weight": (8, 128)}
  shapes["linear.bias"] = (8,)
  for depth, width in enumerate((64, 128)):
    shapes[f"lstm.weight_ih_l{depth}"] = (512, width)
    shapes[f"lstm.weight_hh_l{depth}"] = (512, 128)
    shapes |= {f"lstm.bias_{kind}_l{depth}": (512,) for kind in ("ih", "hh")}
  state = {
    name: rng.normal(size=shape, scale=0.2).astype(np.float32)
    for name, shape in shapes.items()
  }
  Path("chars.json").write_text(json.dumps(symbols))
  tensor = lambda value: types.SimpleNamespace(numpy=lambda: value)
  tensors = {name: tensor(value) for name, value in state.items()}
  torch = types.SimpleNamespace(load=lambda *_, **__: tensors)
  monkeypatch.setitem(sys.modules, "torch", torch)
  names = {}
  exec(blocks("howto/export.md")[-1], names)
  ids = [symbols.index(s) for s in "hello world"]
  logits = logits_of(state, ids)
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = [-logs[n, i] for n, i in enumerate(ids[1:])]
  found = names["run"].score("hello world")
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_torch_lacks_is_refused():
  _, _, params = new_model("lstm")
  cells = "must be one of gru, lstm, rnn_relu, rnn_tanh"
  for cell, more, message in (
    ("slstm", {}, f"model.cell='slstm': {cells}"),
    ("lru", {}, f"model.cell='lru': {cells}"),
    ("lstm", {"transitions": 0}, "the model has transitions, and"),
  ):
    experiment, config, _ = new_model("lstm", model__cell=cell)
    given = experiment, config, {**params, **more}
    assert message in message_of(network.network_of, *given)


def test_other_tensors_are_refused(exported, tmp_path):
  from safetensors.numpy import load_file, save_file

  _, _, path = exported("lstm")
  folder = tmp_path / "export"
  folder.mkdir()
  for name in ("config.json", "vocabulary.json"):
    (folder / name).write_bytes((path.parent / name).read_bytes())
  whole = load_file(path)

  def refused(message, changes):
    new = {**whole, **changes}
    new = {name: value for name, value in new.items() if value is not None}
    save_file(new, folder / path.name)
    line = message_of(seqrnn.from_export, folder, tmp_path / "run")
    assert line.startswith(f"{folder / path.name}: ") and message in line
    assert not (tmp_path / "run").exists()

  refused("has no tensor 'head.bias', which", {"head.bias": None})
  refused("head.bias has the shape (9,)", {"head.bias": np.ones(9)})
  refused("other: the model of config.json has no", {"other": np.ones(1)})
  seqrnn.from_export(path.parent, tmp_path / "run")
  with pytest.raises(UserError, match="holds a run; name another"):
    seqrnn.from_export(path.parent, tmp_path / "run")


def test_the_command_writes_a_card(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(jinja2, "Environment", Recorder)
  workdir = tmp_path / "run"
  write_run(workdir, "gru", data__source="ptb", model__dropout=0.25)
  add_row(workdir / "metrics.csv", {"step": 7, "validation_loss": 1.3})
  (workdir / "evaluation.json").write_text(
    '{"split": "test", "step": 7, "symbols": 9, "loss": 1.23456}'
  )
  command = ["run.py", f"--workdir={workdir}", "--mode=export"]
  assert cli.main(command) == 0
  shown = capsys.readouterr().out.split()
  folder = workdir / "export"
  files = "model.safetensors", "MODEL_CARD.md"
  assert shown == [str(folder / name) for name in files]
  card = (folder / "MODEL_CARD.md").read_text()
  for part in (
    "- terms: terms of the LDC for the Penn Treebank: research",
    "- test loss: 1.2346\n",
    "those of step 7.\n",
    "\nmodel.dropout: 0.0 -> 0.25\n",
  ):
    assert part in card, part
  # A run that started from another one, and was not evaluated.
  (workdir / "metrics.csv").unlink()
  record = Record("runs/other", 9, ["embedding", "layer 1 forward"], ["head"])
  (workdir / "start.json").write_bytes(record.encoded())
  assert cli.main(command) == 0
  card = (folder / "MODEL_CARD.md").read_text()
  start = "- embedding, layer 1 forward started from runs/other, step 9\n"
  assert start in card and "- not evaluated (" in card
  assert not Recorder.not_rendered("card.md.jinja")
