"""The zoo: its models in the package."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

import seqrnn
from benchmarks import zoo
from seqrnn import cli
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.data.read import stored
from seqrnn.errors import UserError
from seqrnn.logs.detect import calibration


@pytest.fixture
def tiny_zoo(trained, tmp_path, monkeypatch):
  """A zoo with the model `tiny`; its parameters before they are rounded."""
  monkeypatch.chdir(tmp_path)
  trained().rename("tiny")
  export = seqrnn.export("tiny").parent
  file = export / "model.safetensors"
  zoo.cast(file, Path("rounded"), "bfloat16")
  shutil.move("rounded", file)
  seqrnn.from_export(export, "again")
  target = tmp_path / "zoo" / "tiny"
  shutil.copytree(export, target)
  shutil.copy("again/config.json", target)
  monkeypatch.setattr(command, "_ZOO", target.parent)
  return seqrnn.load("tiny").params


def test_a_model_is_loaded_by_its_name(tiny_zoo, capsys):
  status = cli.main(["seqrnn", "--workdir=zoo:tiny", "--mode=describe"])
  assert status == 0, capsys.readouterr().err
  run = seqrnn.load("zoo:tiny")
  assert run.workdir == Path("runs/zoo-tiny")
  rounded = jax.tree.map(lambda x: x.astype("bfloat16"), tiny_zoo)
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(x, y.astype(np.float32)),
    run.params,
    rounded,
  )
  # After a refresh, the modes of the current model have it.
  (run.workdir / "refresh" / "2").mkdir(parents=True)
  (run.workdir / "refresh.json").write_text('{"current": 2, "kept": [2]}')
  for mode, folder in (("detect", "/refresh/2"), ("describe", "")):
    request = command.Command(mode, workdir="zoo:tiny")
    assert command._folders(request) == [f"runs/zoo-tiny{folder}"]
  with pytest.raises(UserError, match="the zoo has zoo:tiny; did you mean"):
    seqrnn.load("zoo:tini")


def test_the_package_has_each_model():
  """With its card; at most 6 MB in all."""
  assert sum(path.stat().st_size for path in zoo.ZOO.rglob("*")) < 6e6
  for folder in zoo.ZOO.iterdir():
    names = {path.name for path in folder.iterdir()}
    assert names >= {zoo.FILE, *zoo.FILES}
    assert "on the test split" in (folder / "MODEL_CARD.md").read_text()


def test_the_calibration_of_the_shop_is_of_this_version():
  """So its log is examined without training: python benchmarks/zoo.py shop."""
  folder = zoo.ZOO / "shop"
  text = str(stored.load_arrays(folder / calibration.CALIBRATION)["rests_on"])
  known = json.loads(text)
  facts = lambda split: {"crc32": known[split]}
  experiment: Any = SimpleNamespace(facts=facts)
  config, nothing = config_lib.read_run(folder), cast(Any, None)
  run = calibration.Prepared(
    nothing, config, folder, experiment, nothing, nothing
  )
  assert calibration._key(run, known["models"]) == text
