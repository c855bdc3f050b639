"""What may change when a run resumes: its limits."""

import pickle
import re
import shutil

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.modes import evaluate
from seqrnn.run import load_run
from seqrnn.training import linear, train
from tests.conftest import tiny


def test_only_limits_may_change(trained, capsys):
  workdir = trained()

  def fit(**fields):
    config = config_lib.read_run(workdir)
    with config.unlocked():
      config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in fields.items()}
      )
    return train.fit(experiments.build, config, workdir)

  record = (workdir / "config.json").read_bytes()
  for name, value, differs in (
    ("optimizer.learning_rate", 0.1, "optimizer.learning_rate: 0.002 -> 0.1"),
    ("checkpoint.every", 2, "checkpoint.every: None -> 2"),
  ):
    with pytest.raises(UserError) as caught:
      fit(**{name: value})
    assert str(caught.value) == (
      f"{workdir}: holds another run, {differs}; name another --workdir,"
      " because only train.epochs, train.max_steps, train.patience may change"
    )
  # A limit that is lower, or raised where another one has ended the training.
  for limits in ({"train.max_steps": 2}, {"train.epochs": 3}):
    capsys.readouterr()
    assert fit(**limits)["step"] == 4
    out = capsys.readouterr().out
    assert re.search(r"^the training has ended by .*max_steps$", out, re.M)
    assert "finished at step 4;" in out
    assert (workdir / "config.json").read_bytes() == record
  fit(**{"train.max_steps": 5, "train.patience": 9})
  settings = load_run(workdir).config.train
  assert (settings.max_steps, settings.patience) == (5, 9)


def test_a_refit_reads_training_and_validation_and_resumes_exactly(
  tmp_path, capsys, monkeypatch
):
  fields = {"task": "classification", "data.format": "tab", "data.path": None}
  for n, split in enumerate(("train", "validation", "test")):
    texts = [f"{x}\t{x * (k + n)}\n" for k in range(2, 8) for x in "ab"]
    (tmp_path / split).write_text("".join(texts))
    fields[f"data.{split}_path"] = str(tmp_path / split)
  fields |= {"train.refit": True, "train.choice": "last", "train.epochs": 2}
  fields["model.wide"] = True
  monkeypatch.setattr(linear, "_SURE", -1e9)  # It is the farthest one.
  config, params, steps, weights = tiny(tmp_path, fields), [], 0, None
  for name in ("whole", "stopped"):
    workdir = tmp_path / name
    if name == "stopped":  # Within the second training.
      with monkeypatch.context() as patch:
        patch.setattr(train, "_refit", lambda *_: None)
        train.fit(experiments.build, config, workdir)
      begun = workdir / "refit.part"
      begun.mkdir()
      shutil.copy(workdir / "vocabulary.json", begun)
      again = derived.refit(config_lib.read_run(workdir), steps)
      again.train.max_steps, again.model.logit_weights = 2, weights
      train.fit(experiments.build, again, begun)
      assert load_run(workdir).params["head"].keys()
    steps = train.fit(experiments.build, config, workdir)["step"]
    assert capsys.readouterr().out.count("train.refit: training again for") == 1
    run = load_run(workdir)
    params.append(run.params)
    assert run.step == steps
    alone = load_run(workdir, steps)
    weights = tuple(np.array(run.params["wide"]["weights"]).tolist())
    assert weights == (*alone.params["wide"]["weights"],)
    assert weights[1] == 0  # The farthest one.
    second = config_lib.read_run(workdir / "refit")
    assert second.model.logit_weights == weights
    same = jax.tree.map(np.array_equal, alone.params, run.params)
    assert same.pop("wide")["weights"] and not any(jax.tree.leaves(same))
  again = pickle.loads(pickle.dumps(run))
  same = jax.tree.map(np.array_equal, run.params, again.params)
  assert all(jax.tree.leaves(same))
  same = jax.tree.map(np.array_equal, *params)
  assert all(jax.tree.leaves(same))
  second = load_run(workdir / "refit").experiment
  assert second.facts("train")["documents"] == 24
  assert second.facts("test") == alone.experiment.facts("test")
  config.evaluate.split = "validation"
  figures = evaluate.run(experiments.build, config, workdir)
  assert figures == alone.evaluate("validation")
  assert "train.refit has trained on the valid" in capsys.readouterr().err
  train.fit(experiments.build, config, workdir)  # It is done.
  assert "training again" not in capsys.readouterr().out
