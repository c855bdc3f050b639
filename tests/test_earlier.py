"""Runs of an earlier version: opened, evaluated, sampled, resumed, detected."""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pytest

import experiments
from seqrnn import program
from tests.earlier import make

ARCHIVE = Path(__file__).parent / "earlier" / "runs.tar.xz"
DETECTED = [name for name in make.RUNS if "detect.folds" in make.RUNS[name]]
TOLERANCE = 1e-4  # Relative; another processor rounds differently.


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """The folder with the runs and their data; data paths are relative to it."""
  folder = tmp_path_factory.mktemp("runs")
  with tarfile.open(ARCHIVE) as archive:
    archive.extractall(folder, filter="data")
  return folder


@pytest.fixture(scope="module")
def expected(home):
  """What the earlier version computed, by run."""
  return json.loads((home / "expected.json").read_text())


@pytest.mark.parametrize("name", DETECTED)
def test_its_sessions_are_scored_by_new_folds(
  name, home, expected, monkeypatch, capfd
):
  """Its folds have vocabularies of their own, and are trained again."""
  monkeypatch.chdir(home)
  workdir = shutil.copytree(Path("runs", name), Path("runs", f"{name}-detect"))
  status = program.main(["run.py", f"--workdir={workdir}", "--mode=detect"])
  assert status == 0, capfd.readouterr().err
  assert "is trained again" in capfd.readouterr().out
  assert make.flags(workdir).keys() == expected[name]["sessions"].keys()


@pytest.mark.parametrize("name", make.RUNS)
def test_a_run_evaluates_samples_and_resumes(
  name, home, expected, monkeypatch, capfd
):
  monkeypatch.chdir(home)
  found = make.expected(home, name)
  assert found["test"] == pytest.approx(expected[name]["test"], TOLERANCE)
  assert found.get("sample") == expected[name].get("sample")

  flags = ["--mode=train", f"--config.train.max_steps={make.STEPS}"]
  status = program.main(["run.py", f"--workdir=runs/{name}", *flags])
  assert status == 0, capfd.readouterr().err
  row = {k: float(v) for k, v in make.last_row(Path("runs", name)).items()}
  before = {k: float(v) for k, v in expected[name]["resumed"].items()}
  if name == "offsets":
    assert row["step"] == before["step"]
  else:
    assert row == pytest.approx(before, TOLERANCE)


def test_a_search_goes_on(home, monkeypatch):
  pytest.importorskip("optuna")
  monkeypatch.chdir(home)
  make.search(home, trials=3)
  with Path("runs", "search", "trials.csv").open() as file:
    states = [row["state"] for row in csv.DictReader(file)]
  assert states == ["finished"] * 3
  run = experiments.load(Path("runs", "search", "trials", "0002"))
  assert run.step == 3
