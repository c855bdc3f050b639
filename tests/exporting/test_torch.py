"""Exports to PyTorch: the same outputs there, the same run back."""

import errno
import functools
import json
import os
import struct
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
import seqrnn
from seqrnn import program
from seqrnn.errors import UserError
from seqrnn.exporting import network, operators
from seqrnn.modes import export
from tests.conftest import write_text
from tests.exporting.models import (
  MODELS,
  SYMBOLS,
  inputs_of,
  made,
  predict,
  write_run,
)
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
    experiment, config, params = write_run(workdir, name, **start)
    config = config.copy_and_resolve_references()
    return experiment, params, export.run(experiments.build, config, workdir)

  return once


def back(path, workdir, **settings):
  return seqrnn.from_torch(
    path,
    path.parent / "vocabulary.json",
    workdir,
    path.parent / "config.json",
    **settings,
  )


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


@pytest.mark.parametrize("name", ["heads", "tied gap"])
def test_towers_are_two_stacks(exported, name):
  torch = pytest.importorskip("torch")
  from safetensors.torch import load_file

  experiment, params, path = exported(name)
  tensors, outputs = load_file(path), {}
  inputs = inputs_of(experiment, [9, 9], len(SYMBOLS))
  for stack in ("forward_rnn.", "backward_rnn."):
    own = {k.removeprefix(stack): v for k, v in tensors.items() if stack in k}
    kind = "GRU" if name == "tied gap" else "LSTM"
    width = own["weight_ih_l0"].shape[1]
    rnn = getattr(torch.nn, kind)(width, 5, len(own) // 4, batch_first=True)
    rnn.load_state_dict(own)
    table = tensors.get("embedding.weight", torch.eye(width))
    flip = stack.startswith("backward")
    x = table[torch.tensor(inputs[:, ::-1].copy() if flip else inputs)]
    with torch.no_grad():
      y = rnn(x)[0]
    y = torch.cat([torch.zeros(2, 1, 5), y[:, :-1]], 1)
    outputs[stack] = y.flip(1) if flip else y
  weight = tensors.get("head.weight", tensors.get("embedding.weight"))
  joint = (
    torch.cat(list(outputs.values()), -1) @ weight.T + tensors["head.bias"]
  )
  expected = predict(experiment, params, inputs)
  np.testing.assert_allclose(joint, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "name", ["tied", "relu", "heads", "tagger", "classifier"]
)
def test_an_export_comes_back(exported, tmp_path, name):
  experiment, params, path = exported(name)
  run = back(path, tmp_path / "again")
  # Neither the start of that run nor its step is that of the new one.
  train = run.config.train
  assert (train.start_from, train.freeze) == (None, None)
  assert json.loads((path.parent / "config.json").read_text())["checkpoint"]
  assert run.config.checkpoint.step is None
  if made(name)[1].model.merge == "concat":
    jax.tree.map(np.testing.assert_array_equal, run.params, params)
    return
  inputs = inputs_of(experiment, [4, 9, 1], len(SYMBOLS))
  expected = predict(experiment, params, inputs)
  found = predict(run.experiment, run.params, inputs)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_guide_goes_on_and_comes_back(tmp_path, monkeypatch, capsys):
  torch = pytest.importorskip("torch")
  monkeypatch.chdir(tmp_path)
  write_run(tmp_path / "runs" / "rnn", "tied")
  argv = ["run.py", "--workdir=runs/rnn", "--mode=export"]
  assert program.main(argv) == 0
  load, use, *others = blocks("howto/export.md")
  names = {}
  exec(load + "\n" + use, names)
  assert capsys.readouterr().out.count("'") == 6  # Three symbols.
  # A file of torch.save, with a vocabulary that has no reserved symbols.
  state = {
    k: v[4:] if len(v) == 11 else v
    for k, v in names["model"].state_dict().items()
  }
  torch.save({"state_dict": state, "epoch": 3}, "char-rnn.pt")
  (tmp_path / "chars.json").write_text(json.dumps(SYMBOLS.symbols))
  exec(
    "\n".join(
      code
      for code in others
      if "from_torch" in code and "data.path" not in code
    ),
    names,
  )
  wanted = seqrnn.load("runs/rnn").params
  jax.tree.map(np.testing.assert_array_equal, names["run"].params, wanted)
  run = seqrnn.load("runs/char-rnn")
  found = run.params["embedding"]["embedding"]
  np.testing.assert_array_equal(found[4:], wanted["embedding"]["embedding"][4:])
  torch.save(torch.nn.Linear(2, 2), "whole.pt")  # Code, which is not run.
  with pytest.raises(UserError, match="must hold a state dict"):
    seqrnn.from_torch("whole.pt", "chars.json", "runs/whole")


def gru_and_decoder(table, recurrent, biases, decoder, ids):
  """The logits of a GRU of PyTorch's equations, in NumPy."""
  sigmoid = lambda a: 1 / (1 + np.exp(-a))
  (W, R), (b, c), h, made = (*recurrent,), biases, np.zeros(4), []
  for i in ids:
    x, u = table[i] @ W.T + b, h @ R.T + c
    r, z = sigmoid(x[:4] + u[:4]), sigmoid(x[4:8] + u[4:8])
    h = (1 - z) * np.tanh(x[8:] + r * u[8:]) + z * h
    made.append(decoder[0] @ h + decoder[1])
  return np.array(made)


@pytest.mark.parametrize("kind", ["one-hot", "tied"])
def test_a_char_rnn_becomes_a_run(tmp_path, kind):
  symbols = [*"hello wrd"[::-1].replace("l", "", 1)]
  V, D, rng = len(symbols), 4, np.random.default_rng(0)
  width = V if kind == "one-hot" else D
  shapes = {
    "encoder.weight": (V, D),
    "gru.weight_ih_l0": (12, width),
    "gru.weight_hh_l0": (12, 4),
    "gru.bias_ih_l0": (12,),
    "gru.bias_hh_l0": (12,),
    "decoder.weight": (V, 4),
    "decoder.bias": (V,),
  }
  state = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
  if kind == "tied":
    state["decoder.weight"] = state["encoder.weight"]
  if kind == "one-hot":
    del state["encoder.weight"]
  ids = {symbol: i for i, symbol in enumerate(symbols)}
  vocabulary = tmp_path / "chars.json"
  vocabulary.write_text(json.dumps(ids if kind == "tied" else symbols))
  data = {"data.source": "files", "data.path": str(write_text(tmp_path))}
  run = seqrnn.from_torch(
    state, vocabulary, tmp_path / "run", window=16, batch_size=4, **data
  )
  assert run.config.model.tied == (kind == "tied")
  if kind == "tied":  # An unknown symbol is read as the mean.
    table = run.params["embedding"]["embedding"]
    np.testing.assert_allclose(table[3], table[4:].mean(0), atol=1e-6)

  text = "hello world"
  encoder, W, R, b, c, *decoder = [state.get(n, np.eye(V)) for n in shapes]
  logits = gru_and_decoder(
    encoder, (W, R), (b, c), decoder, [ids[s] for s in text]
  )
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = [-logs[n, ids[s]] for n, s in enumerate(text[1:])]
  np.testing.assert_allclose(run.score(text), expected, rtol=1e-4, atol=1e-5)
  if kind == "one-hot":
    with pytest.raises(UserError, match="start a new run from it"):
      seqrnn.train(workdir=tmp_path / "run", verbose=False)


REFUSED = {
  "model.cell='slstm': must be one of gru, lstm, odyssey_np, rnn_relu, rnn": {
    "model.cell": "slstm"
  },
  "model.zoneout_cell=0.1: must be 0": {"model.zoneout_cell": 0.1},
  "model.crf=True: cannot be exported": {"task": "tagging", "model.crf": True},
  "model.letters=4: must be empty": {"task": "tagging", "model.letters": 4},
  "model.affixes=2: must be empty": {"task": "tagging", "model.affixes": 2},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_torch_lacks_is_refused(message):
  experiment, config, params = made("lstm")
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(REFUSED[message])
  with pytest.raises(UserError) as caught:
    network.parts(experiment, config, params, operators.in_torch)
  assert message in str(caught.value)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
  workdir = tmp_path / "run"
  write_run(workdir, "relu")
  with pytest.raises(UserError, match=r"pip install 'seqrnn\[export\]'"):
    seqrnn.export(workdir)
  assert not (workdir / "export").exists()
  with pytest.raises(UserError, match="must be one of safetensors, onnx"):
    seqrnn.export(workdir, "keras")


def test_a_part_of_its_own_is_refused():
  experiment, config, params = made("lstm")
  with pytest.raises(UserError, match="its model has transitions, and"):
    network.parts(
      experiment, config, {**params, "transitions": 0}, operators.in_torch
    )


def tensors(**more):
  shapes = {"r.weight_ih_l0": (8, 3), "r.weight_hh_l0": (8, 2), "d.bias": (3,)}
  shapes = {**shapes, "d.weight": (3, 2), **more}
  return {name: np.ones(s) for name, s in shapes.items() if s is not None}


BROKEN = {
  "has values that are not finite": {"d.bias": np.full(3, np.nan)},
  "d.bias: must be a tensor of numbers": {"d.bias": ["a"]},
  "d.weight: must be a tensor of numbers": {"d.weight": np.ones((3, 2)) * 1j},
  "recurrent layers of no module": {"d.bias": np.ones(3)},
  "recurrent layers of r., s.": tensors(**{"s.weight_hh_l0": (8, 2)}),
  "an LSTM with projections": tensors(**{"r.weight_hr_l0": (1, 2)}),
  "r.weight_*_l1: is missing": tensors(**{"r.weight_ih_l1": (8, 2)}),
  "shapes differ from torch.nn's": tensors(**{"r.weight_ih_l0": (7, 3)}),
  "r.weight_*_l0: shapes differ": tensors(**{"r.bias_ih_l0": ()}),
  "has d.bias, d.weight beside": tensors(**{"d.bias": ()}),
  "must have 4, 3 or 1 rows": tensors(
    **{"r.weight_ih_l0": (4, 3), "r.weight_hh_l0": (4, 2)}
  ),
  "has d.bias, d.weight, x beside": tensors(x=(2,)),
  "has d.weight beside its": tensors(**{"d.bias": None}),
  # One of the two would be the head.
  "has d.bias, d.weight, e.bias, e.weight beside": tensors(
    **{"e.weight": (3, 2), "e.bias": (3,)}
  ),
  "gives head.bias the shape (9,)": tensors(
    **{"d.weight": (5, 2), "d.bias": (5,)}
  ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_other_tensors_are_refused(tmp_path, message):
  with pytest.raises(UserError) as caught:
    seqrnn.from_torch(BROKEN[message], ["a", "b", "c"], tmp_path / "run")
  assert message in str(caught.value)
  assert not (tmp_path / "run").exists()


def test_wrong_words_are_refused(tmp_path):
  def refused(message, vocabulary=("a", "b", "c"), weights=None, **settings):
    weights = tensors() if weights is None else weights
    with pytest.raises(UserError) as caught:
      seqrnn.from_torch(weights, vocabulary, tmp_path / "run", **settings)
    assert message in str(caught.value)

  refused("reads 3 symbols; the vocabulary has 2", ["a", "b"])
  refused("must be a list of symbols", {"a": 0, "b": 2, "c": 1, "d": 4})
  refused("has a symbol that is no char", ["a", "b", "cc"])
  refused("no.json: No such file", tmp_path / "no.json")
  refused("no.pt: no such file", weights=tmp_path / "no.pt")
  refused("config.model.layers=2: the tensors have 1", layers=2)
  refused("no such field", depths=2)
  of_other = {"train.start_from": "runs/x", "data.pretrain_path": "x.txt"}
  for name, value in {**of_other, "model.zoneout_cell": 0.1}.items():
    refused(
      f"config.{name}={value!r}: a run of a PyTorch model has", **{name: value}
    )
  refused("data.boundaries=True: a model without reserved", boundaries=True)
  chars = {"symbols": {"unit": "char", "symbols": ["a", "b", "c"]}}
  refused("unit='word': the vocabulary has 'char'", chars, unit="word")
  broken = tmp_path / "broken.safetensors"
  broken.write_bytes(b"no tensors at all")
  refused("broken.safetensors: cannot be read", weights=broken)
  header = {"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}
  content = json.dumps(header).encode()
  broken.write_bytes(struct.pack("<Q", len(content)) + content + b"\0")
  refused("broken.safetensors: cannot be read", weights=broken)
  seqrnn.from_torch(tensors(), ("a", "b", "c"), tmp_path / "run")
  refused("holds a run")


def test_the_command_writes_a_card(tmp_path, capsys, monkeypatch):
  workdir = tmp_path / "run"
  write_run(workdir, "tied", data__source="ptb", model__dropout=0.25)
  (workdir / "evaluation.json").write_text(
    '{"split": "test", "step": 7, "symbols": 9, "loss": 1.23456}'
  )
  assert program.main(["run.py", f"--workdir={workdir}", "--mode=export"]) == 0
  shown = capsys.readouterr().out.split()
  folder = workdir / "export"
  files = "model.safetensors", "MODEL_CARD.md"
  assert shown == [str(folder / name) for name in files]
  card = (folder / "MODEL_CARD.md").read_text()
  for part in (
    "- terms: terms of the LDC for the Penn Treebank: research",
    "- test loss: 1.2346\n",
    "the two are tied",
    "parameters of step 7",
    "\nmodel.dropout: 0.0 -> 0.25\n",
  ):
    assert part in card, part
  assert "search" not in json.loads((folder / "config.json").read_text())
  capsys.readouterr()

  # A killed process has left a set of another checkpoint.
  whole = folder / ".export.whole"
  whole.mkdir()
  for name in ("config.json", "model.onnx"):
    (whole / name).write_text("of another checkpoint")
  new = {"new": ["config.json", "model.onnx"], "gone": []}
  (whole / "set.json").write_text(json.dumps(new))
  seqrnn.export(workdir)
  assert not (folder / "model.onnx").exists()

  def full(self, content):  # noqa: ARG001
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(Path, "write_bytes", full)
    again = ["run.py", f"--workdir={workdir}", "--mode=export"]
    assert program.main(again) == 2
  error = f"error: {folder}/model.safetensors: cannot be written: No space"
  assert capsys.readouterr().err.startswith(error)
  assert (folder / "MODEL_CARD.md").read_text() == card
  status = program.main(["run.py", f"--workdir={tmp_path}/no", "--mode=export"])
  assert status == 2
  assert capsys.readouterr().err.count("\n") == 1
