"""seqrnn from Python: what `import seqrnn` gives."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import flax
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import seqrnn
from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.errors import needs_package
from seqrnn.models.cells.classic import LSTM
from seqrnn.table import data_frame
from seqrnn.training import train
from tests.conftest import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder with the runs a, b and c, of another size, and corpus."""
  folder = tmp_path_factory.mktemp("trained")
  config = tiny(folder, {"train.max_steps": 2, "train.eval_every": 1})
  train.fit(experiments.build, config, folder / "runs" / "a")
  shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
  config.optimizer.learning_rate = 0.5
  train.fit(experiments.build, config, folder / "runs" / "c")
  return folder


def test_the_import_is_instant_and_the_names_are_there(monkeypatch):
  code = (
    "import seqrnn, sys; early = {'jax', 'numpy', 'sklearn', 'experiments'}"
    " & {*sys.modules}; assert not early, early;"
    " assert {*seqrnn.__all__, *seqrnn.ESTIMATORS} <= {*dir(seqrnn)}"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
  for name in seqrnn.__all__:
    assert getattr(seqrnn, name).__doc__
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    seqrnn.lode  # noqa: B018
  monkeypatch.setitem(sys.modules, "pandas", None)
  with pytest.raises(seqrnn.UserError, match="pandas: pip install 'seqrnn"):
    data_frame([])
  # Other imports that fail are bugs, of seqrnn or of the package.
  for line in (
    "import seqrnn.no_module",
    "import no_module",
    "from seqrnn.errors import no_name",
    "from numpy import no_name",
  ):
    with pytest.raises(ImportError), needs_package("x", "pandas numpy", "y"):
      exec(line)


def test_a_folder_may_be_any_path(trained, monkeypatch, tmp_path):
  monkeypatch.chdir(trained / "corpus")
  monkeypatch.setenv("HOME", str(trained))
  path = "../corpus/../runs/a"
  for place in (path, Path(path), "~/runs/../runs/a"):
    assert seqrnn.load(place).workdir == trained / "runs" / "a", place
  assert seqrnn.runs("../runs/[a]")["run"].tolist() == ["a"]
  exported = seqrnn.export(path)
  (tmp_path / "x").mkdir()
  folder = exported.parent / ".." / "export"
  made = seqrnn.from_export(folder, tmp_path / "x" / ".." / "made")
  assert made.workdir == tmp_path / "made"
  config = seqrnn.load(path).config
  config.train.start_from = path
  assert seqrnn.train(config, "../corpus/../next").step == 2


def test_a_run_finds_its_data_from_another_folder(
  trained, tmp_path, monkeypatch
):
  config = seqrnn.load(trained / "runs" / "a").config
  first, moved, other = (
    tmp_path / name for name in ("first", "moved", "other")
  )
  shutil.copytree(trained / "corpus", first / "texts")
  other.mkdir()
  monkeypatch.chdir(first)
  config.data.path = "texts"
  figures = seqrnn.train(config, "run").evaluate("test")
  shutil.copytree(first, moved)
  monkeypatch.chdir(moved)  # A path that leads somewhere is as it was typed.
  run = seqrnn.load("run")
  assert run.evaluate("test") == figures and run.config.data.path == "texts"
  monkeypatch.chdir(other)
  assert seqrnn.load("../first/run").evaluate("test") == figures
  exported = seqrnn.export("../first/run").parent
  for name in ("config.json", "MODEL_CARD.md"):  # Which may be published.
    text = (exported / name).read_text()
    assert "texts" in text and str(tmp_path) not in text
  # It is resumed from there: by itself, and by a config with the same path.
  for number, named in enumerate((None, config, config), 3):
    run = seqrnn.train(named, first / "run", **{"train.max_steps": number})
    assert run.metrics["step"].max() == number
    assert run.config.data.path == str(first / "texts")
    monkeypatch.chdir(other if named is None else first)
  monkeypatch.chdir(other)
  (first / "texts").rename(first / "gone")
  with pytest.raises(seqrnn.UserError) as error:
    seqrnn.load("../moved/run").evaluate("test")
  assert str(error.value) == (
    f"data.path='{first}/texts': no such file; the current folder is {other}"
  )


def test_predictions_are_decoded(trained):
  run = seqrnn.load(trained / "runs" / "a")
  [found] = run.predict("abca", top_k=3)
  symbols = run.experiment.vocabularies["symbols"]
  assert found.likely == [symbols.names(ids) for ids in found.ids]
  assert np.shape(found.likely) == found.probabilities.shape == (5, 3)
  assert found.best == [names[0] for names in found.likely]


def test_a_run_is_pickled(trained, monkeypatch):
  monkeypatch.chdir(trained)
  run = seqrnn.load("runs/a", step=1)
  content = pickle.dumps(run)
  monkeypatch.chdir("/")
  again = pickle.loads(content)
  assert again.step == 1 and again.config == run.config
  jax.tree.map(np.testing.assert_array_equal, again.params, run.params)


def test_runs_are_gathered(trained, monkeypatch, capsys):
  monkeypatch.chdir(trained)
  table = seqrnn.runs()
  assert table["run"].tolist() == ["a", "b", "c"]
  varied = [name for name in table.columns if "." in name]
  assert varied == ["optimizer.learning_rate"]
  assert table["optimizer.learning_rate"][2] == 0.5
  assert table["state"].tolist() == ["finished"] * 3
  for _, row in table.iterrows():
    rows = seqrnn.load(Path("runs", row["run"])).metrics
    best = rows.loc[rows["validation_loss"].idxmin()]
    for name in ("step", "train_loss", "validation_accuracy"):
      assert row[name] == best[name]
  assert "test_loss" not in table
  # Only an evaluation of that checkpoint counts.
  for name, step in (("a", table["step"][0]), ("b", 99)):
    record = {"split": "test", "step": int(step), "loss": 1.5, "symbols": 7}
    Path("runs", name, "evaluation.json").write_text(json.dumps(record))
  found = seqrnn.runs("runs/?")
  assert found["test_loss"].tolist()[:1] == [1.5]
  assert np.isnan(found["test_loss"][1:]).all()
  shutil.copytree("runs/a", "more/a")
  assert seqrnn.runs("runs/a", "more/a")["run"].tolist() == ["runs/a", "more/a"]
  assert capsys.readouterr().err == ""


def test_runs_that_are_broken_or_missing(trained, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(seqrnn.UserError, match=r"runs/\*: matches no folder"):
    seqrnn.runs()
  with pytest.raises(seqrnn.UserError, match="runs/a: has no run"):
    seqrnn.runs("runs/a")
  for name in "abc":
    shutil.copytree(trained / "runs" / "a", tmp_path / "runs" / name)
  Path("runs/b/config.json").write_text("{")
  for name in ("metrics.csv", "sha256"):  # Stopped before an evaluation.
    Path("runs/c", name).unlink()
  Path("runs/other").mkdir()
  Path("runs/c/evaluation.json").write_text("[1]")
  table = seqrnn.runs("runs/[ac]")
  assert table["run"].tolist() == ["a", "c"] and np.isnan(table["step"][1])
  assert table["state"].tolist() == ["finished", "finished"]
  with pytest.raises(seqrnn.UserError, match="runs/b/config.json"):
    seqrnn.runs("runs/*")


def test_a_training_from_python(trained, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  config = seqrnn.load(trained / "runs" / "a").config
  (tmp_path / "mine.json").write_bytes(config_lib.encoded(config))
  handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  environment = dict(os.environ)
  made = {"learning_rate": 0.25, "data.path": Path(config.data.path)}
  # A user's own lines are printed, as those of jax.debug.print in a cell.
  # nn.scan of newer versions refuses a body with effects.
  prints = tuple(map(int, flax.__version__.split(".")[:3])) < (0, 12, 9)
  gates = LSTM.gates

  def printing(self, carry, *terms):
    print("traced")
    if prints:
      jax.debug.print("{}", carry[0][0, 0])
    return gates(self, carry, *terms)

  with monkeypatch.context() as patch:
    patch.setattr(LSTM, "gates", printing)
    run = seqrnn.train("mine.json", **made, verbose=False)
  jax.effects_barrier()
  said, warned = capsys.readouterr()
  assert not warned and "traced" in said and prints == ("0.0" in said)
  assert not re.search("[a-z]{3}", said.replace("traced", ""))
  assert run.workdir == Path("runs/mine-learning_rate=0.25")
  assert run.config.optimizer.learning_rate == 0.25 and len(run.metrics) == 2
  # The same call loads it; another one goes on; without a config, too.
  again = seqrnn.train("mine.json", **made)
  assert "finished at step 2" in capsys.readouterr().out
  assert again.step == run.step and again.workdir == run.workdir
  more = seqrnn.train(workdir=run.workdir, **{"train.max_steps": 3})
  assert more.metrics["step"].tolist() == [1, 2, 3]
  # A ConfigDict is left as it is, and trains the same.
  before = config.to_json()
  other = seqrnn.train(config, "other", **{"optimizer.learning_rate": 0.25})
  assert config.to_json() == before
  assert other.metrics.equals(more.metrics[:2])
  assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == (
    handlers
  )
  assert dict(os.environ) == environment


MISTAKES = (
  ({"config": {}}, {}, "config={}, workdir=None: must be names or paths"),
  ({"workdir": "a\0b"}, {}, r"config=None, workdir='a\x00b': must be names or"),
  ({"config": b"rnn"}, {}, "config=b'rnn', workdir=None: must be names or"),
  ({"workdir": "~nouser/x"}, {}, "--workdir=~nouser/x: has no run"),
  ({"workdir": "run"}, {"start_from": b"a"}, "config.train.start_from=b'a': "),
  ({"config": ConfigDict()}, {}, "workdir: is missing; a ConfigDict"),
  ({"workdir": "run"}, {"lr": 3}, "config.lr: no such field; did you mean opt"),
  (
    {"workdir": "run"},
    {"name": "sgd"},
    "name='sgd': several groups have this field, optimizer.name,"
    " schedule.name; name one: **{\"optimizer.name\": 'sgd'}",
  ),
)


def test_a_mistake_is_one_line(trained, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "run").symlink_to(trained / "runs" / "a")
  for arguments, settings, rule in MISTAKES:
    with pytest.raises(seqrnn.UserError) as failed:
      seqrnn.train(**arguments, **settings)
    message = str(failed.value)
    assert message.startswith(rule) or f"/{rule}" in message, message
    assert "\n" not in message
    assert failed.value._render_traceback_() == [f"error: {message}"]
  run = seqrnn.load("run")
  for call, rule in (
    (lambda: seqrnn.load("~nouser/x"), "--workdir=~nouser/x: has no run"),
    (lambda: seqrnn.load(b"run"), "workdir=b'run': must be the path of a"),
    (lambda: run.evaluate(None), "config.evaluate.split=None: must be one of"),
    (lambda: run.sample(b"a"), "config.sample.prime=b'a': must be a text"),
  ):
    with pytest.raises(seqrnn.UserError) as failed:
      call()
    assert str(failed.value).startswith(rule), failed.value


def test_a_search_from_python(trained, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr("seqrnn.modes.search._draw", lambda *_: [])
  monkeypatch.setattr(jax, "clear_caches", lambda: None)
  config = seqrnn.load(trained / "runs" / "a").config
  config.search.update({"trials": 2, "method": "grid", "pruning": "none"})
  config.search.space = ("optimizer.learning_rate=grid(0.1, 0.5)",)
  study = seqrnn.search(config, tmp_path / "search", verbose=False)
  assert capsys.readouterr().out == ""
  trials = study.trials
  assert trials["state"].tolist() == ["finished"] * 2
  assert sorted(trials["optimizer.learning_rate"]) == [0.1, 0.5]
  place = trials["loss"].argmin()
  rate = trials["optimizer.learning_rate"][place]
  assert study.best == {"optimizer.learning_rate": rate}
  losses = seqrnn.runs(study.workdir)["validation_loss"]
  np.testing.assert_allclose(losses, trials["loss"], 1e-6)
