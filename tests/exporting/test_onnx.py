"""Exports to ONNX: the same outputs from onnxruntime, for any batch."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

import seqrnn
from seqrnn import cli
from seqrnn.exporting import onnx_graph
from tests.exporting.models import MODELS as FORMAT_MODELS
from tests.exporting.models import (
  SYMBOLS,
  inputs_of,
  new_model,
  predict,
  write_run,
)
from tests.test_docs import blocks

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
# Models of ONNX alone, beside the models of all formats.
MODELS = {
  **{name: (name, {}) for name in FORMAT_MODELS},
  "sum of heads": ("heads", {"merge": "sum"}),
  "mean of ways": ("tagger", {"merge": "mean"}),
  "sum of states": ("classifier", {"merge": "sum"}),
}


def session(folder, experiment, config, params):
  """An inference session of the model's file, which is a valid one."""
  path, about = folder / onnx_graph.FILE, {"task": config.task}
  path.write_bytes(onnx_graph.encoded(experiment, config, params, about))
  onnx.checker.check_model(str(path), full_check=True)
  return onnxruntime.InferenceSession(
    str(path), providers=["CPUExecutionProvider"]
  )


def carry_of(runtime, batch):
  """Zeros for the inputs of the carry."""
  names = [own for own in runtime.get_inputs() if own.name in ("h", "c")]
  return {
    own.name: np.zeros((own.shape[0], batch, own.shape[2]), np.float32)
    for own in names
  }


def logs(logits):
  return log_softmax(np.asarray(logits), axis=-1)


LENGTHS = 7, 3, 1, 5


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_gives_the_same_outputs(tmp_path, name):
  base, fields = MODELS[name]
  fields = {f"model__{field}": value for field, value in fields.items()}
  experiment, config, params = new_model(base, **fields)
  runtime = session(tmp_path, experiment, config, params)
  music = experiment.reads != "symbol"
  inputs = inputs_of(experiment, LENGTHS, 88 if music else len(SYMBOLS))
  expected = predict(experiment, params, inputs)
  key, dtype = ("frames", np.float32) if music else ("ids", np.int64)
  expected = expected if music else logs(expected)
  for rows in ([0, 1, 2, 3], [1], [3, 2]):  # Each as long as its longest row.
    T = max(LENGTHS[row] for row in rows)
    feeds = {key: inputs[rows, :T].astype(dtype)}
    carry = carry_of(runtime, len(rows))
    got = runtime.run(None, feeds | carry)[0]
    got = got.reshape(len(rows), -1, got.shape[-1])
    for n, row in enumerate(rows):
      stop = min(LENGTHS[row], got.shape[1])
      wanted = expected[row, :stop]
      np.testing.assert_allclose(got[n, :stop], wanted, atol=1e-4)
  for head in ("forward", "backward") if name == "heads" else ():
    batch = {"inputs": inputs, "reset": np.ones(len(inputs), bool)}
    [got] = runtime.run(
      [f"{head}_log_probabilities"], {"ids": inputs.astype(np.int64)}
    )
    _, logits = jax.jit(experiment.heads[head])(params, (), batch)
    for row, stop in enumerate(LENGTHS):
      wanted = logs(logits)[row, :stop]
      np.testing.assert_allclose(got[row, :stop], wanted, atol=1e-4)


def test_a_carry_goes_from_call_to_call(tmp_path):
  experiment, config, params = new_model("lstm")
  runtime = session(tmp_path, experiment, config, params)
  ids = inputs_of(experiment, LENGTHS, len(SYMBOLS)).astype(np.int64)
  start = carry_of(runtime, len(ids))
  [whole, *last] = runtime.run(None, {"ids": ids, **start})
  [first, h, c] = runtime.run(None, {"ids": ids[:, :3], **start})
  [second, *end] = runtime.run(None, {"ids": ids[:, 3:], "h": h, "c": c})
  np.testing.assert_allclose(first[0], whole[0, :3], atol=1e-6)
  np.testing.assert_allclose(second[3, :2], whole[3, 3:5], atol=1e-6)
  # Rows 1 and 2 have ended in the first call: their state stays.
  for own, other in zip(last, end, strict=True):
    np.testing.assert_allclose(own, other, atol=1e-6)


def guided(word, workdir, name):
  """The names of the guide's code about a model, which has run."""
  write_run(workdir, name)
  argv = ["run.py", f"--workdir={workdir}", "--mode=export"]
  assert cli.main([*argv, "--config.export.format=onnx"]) == 0
  [code] = [block for block in blocks("howto/export.md") if word in block]
  names = {}
  exec(code, names)
  return names


def test_the_guide_writes_and_scores(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  workdir = tmp_path / "runs" / "rnn"
  names = guided("Temperature", workdir, "lstm")
  text = names["text"]
  assert text.startswith("import ") and len(text) == len("import ") + 200
  assert set(text[7:]) <= set(SYMBOLS.symbols)
  text = text[:60]  # In one window.
  ids = np.array([[1, *SYMBOLS.encode(text), 2]])
  carry = {n: np.zeros_like(own) for n, own in names["carry"].items()}
  logs = names["model"].run(None, {"ids": ids[:, :-1], **carry})[0][0]
  nats = -logs[np.arange(len(logs)), ids[0, 1:]]
  expected = seqrnn.load(workdir).score(text)
  np.testing.assert_allclose(nats, expected, atol=1e-4)
  folder = workdir / "export"
  pytest.importorskip("safetensors")
  seqrnn.export(workdir)
  assert (folder / "model.onnx").exists()
  card = (folder / "MODEL_CARD.md").read_text()
  assert "`model.onnx`, if" in card and "`model.safetensors` has" in card
  (folder / "config.json").write_text("{}")  # Of another checkpoint.
  (folder / "model.pt").write_text("of the user")
  seqrnn.export(workdir)
  assert not (folder / "model.onnx").exists()
  assert (folder / "model.pt").exists()


def test_the_guide_classifies(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  workdir = tmp_path / "runs" / "names"
  names = guided("labels", workdir, "classifier")
  run = seqrnn.load(workdir)
  for text, own in zip(names["texts"], names["logs"], strict=True):
    [found] = run.predict(text, top_k=3)
    np.testing.assert_allclose(
      np.exp(own)[found.ids[0] - 4], found.probabilities[0], atol=1e-4
    )
