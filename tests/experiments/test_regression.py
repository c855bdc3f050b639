"""Regression in every mode; the modes of a task."""

import json
import random
import re

import jax
import numpy as np
import pytest
from scipy import sparse

from seqrnn import cli, experiments
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.experiments import regression
from seqrnn.modes import modes_of
from seqrnn.run import load_run
from seqrnn.scoring import simple
from seqrnn.training import linear
from tests.conftest import random_params, read_csv, tiny

MODES = (
  "train, evaluate, predict, embed, describe, check, search, report, export,"
  " config"
)
NAMES = ("share", "length")


def table(path, count, seed):
  """Texts with the share of a letter and their length; some have 2 windows."""
  rng = random.Random(seed)
  rows = ["text,share,length\n"]
  for _ in range(count):
    text = "".join(rng.choices("abc", k=rng.randint(2, 14)))
    rows.append(f"{text},{text.count('a') / len(text):.4g},{len(text)}\n")
  path.write_text("".join(rows))
  return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the tables of a regression, and its config."""
  folder = tmp_path_factory.mktemp("regression")
  fields = {
    "task": "regression",
    "data.format": "csv",
    "data.label_column": ",".join(NAMES),
    "data.path": None,
    "optimizer.learning_rate": 0.01,
  }
  for seed, (split, count) in enumerate(
    {"train": 40, "validation": 12, "test": 12}.items()
  ):
    fields[f"data.{split}_path"] = table(folder / split, count, seed)
  (folder / "config.json").write_bytes(config_lib.encoded(tiny(folder, fields)))
  return folder


@pytest.fixture
def main(folder, capfd):
  """A function mode -> status, output; trains if there is no run yet."""
  begin = ["run.py", f"--workdir={folder / 'run'}"]

  def call(mode, *more):
    status = cli.main([*begin, f"--mode={mode}", *more])
    return status, capfd.readouterr()

  if not (folder / "run").exists():
    status, said = call("train", f"--config={folder / 'config.json'}")
    assert status == 0, said.err
    (folder / "said").write_text(said.out)
  return call


def numbers(rows, part):
  """The columns of predictions.csv that begin so, a row a text."""
  return np.array([[float(r[f"{part}_{k}"]) for k in (1, 2)] for r in rows])


def test_figures_are_those_of_the_numbers_that_are_written(folder, main):
  said = (folder / "said").read_text()
  assert "nats" not in said and "bits" not in said and "accuracy" not in said
  [shown] = re.findall(r"validation ([0-9.]+) squared error(?:  best)?\n", said)
  [row] = read_csv(folder / "run" / "metrics.csv")
  assert f"{float(row['validation_loss']):.4f}" == shown
  status, said = main("evaluate")
  assert status == 0, said.err
  record = json.loads((folder / "run" / "evaluation.json").read_text())
  assert not {"perplexity", "accuracy", "bits_per_symbol"} & set(record)
  assert "ridge regression of " in said.out
  assert -1 < record["simple_method"]["r_squared"] < 1

  more = ("--config.predict.split=test", "--config.predict.sequences=99")
  status, said = main("predict", *more)
  assert status == 0, said.err
  assert "bits" not in said.out and "probabilit" not in said.out
  rows = read_csv(folder / "run" / "predictions.csv")
  data = read_csv(folder / "test")
  assert [row["input"] for row in rows] == [row["text"] for row in data]
  truth, predicted = numbers(rows, "truth"), numbers(rows, "prediction")
  table = np.array([[float(row[name]) for name in NAMES] for row in data])
  np.testing.assert_allclose(truth, table, rtol=1e-5)
  errors = ((predicted - truth) ** 2).mean(0)
  train = read_csv(folder / "train")
  trained = np.array([[float(row[name]) for name in NAMES] for row in train])
  expected = {"loss": (errors / trained.var(0)).mean()}
  for name, error, variance in zip(NAMES, errors, truth.var(0), strict=True):
    expected[f"r_squared_{name}"] = 1 - error / variance
    expected[f"rmse_{name}"] = error**0.5
  figures = load_run(folder / "run").evaluate()
  assert figures == pytest.approx(expected, rel=1e-3)
  assert figures == {name: record[name] for name in figures}

  status, said = main("report")
  assert status == 0, said.err
  page = (folder / "run" / "report.html").read_text("utf-8")
  [_, table] = page.split('aria-label="Mistakes" class')
  far = abs(predicted - truth)
  worst = rows[(far / far.mean(0)).sum(1).argmax()]["input"]
  assert re.search('scope="row" dir="auto">(.*?)<', table)[1] == worst


def test_a_text_has_the_mean_of_its_windows(folder, main):
  status, said = main("predict", "--config.predict.text=abcabcabcabc")
  assert status == 0, said.err
  [row] = read_csv(folder / "run" / "predictions.csv")
  assert row["input"] == "abcabcabcabc" and row["truth_1"] == ""
  run = load_run(folder / "run")
  [one] = run.predict("abcabcabcabc")
  assert numbers([row], "prediction") == pytest.approx(one.numbers, rel=1e-5)
  symbols = run.experiment.vocabularies["symbols"]
  ids = np.zeros((2, 8), np.int32)  # With the begin and the end, 14.
  ids.flat[:14] = [1, *symbols.encode("abcabcabcabc"), 2]
  known = run.experiment.vocabularies["numbers"].symbols
  scale_2C = np.array([x.split()[1:] for x in known], np.float32).T
  batch = {"inputs": ids, "reset": np.ones(2, bool)}
  batch["scales"] = np.array([scale_2C, scale_2C])
  _, outputs = run.experiment.predict(run.params, (), batch)
  np.testing.assert_allclose(one.numbers[0], outputs.mean((0, 1)), rtol=1e-4)
  # A cell may have several lines, so lines are not texts.
  found = run.predict(["abcabcabcabc", "ab\nba", "abba"])
  assert [p.text("char") for p in found][1:] == ["ab\nba", "abba"]
  np.testing.assert_allclose(found[0].numbers, one.numbers, rtol=1e-5)
  assert len(run.predict("abba\n")) == 1
  with pytest.raises(UserError, match="text: has several lines, .*'csv'; pass"):
    run.predict("abba\nabba")

  asked = f"--config.predict.path={folder / 'f'}"
  (folder / "f").write_text("id,text\n7,abba\n")
  status, said = main("predict", asked)
  assert status == 0, said.err
  [row] = read_csv(folder / "run" / "predictions.csv")
  assert row["input"] == "abba" and row["truth_2"] == "" and row["id"] == "7"
  (folder / "f").write_text("id,text\n7,abba\n8,\n")
  status, said = main("predict", asked)
  assert status == 0, said.err
  assert len(read_csv(folder / "run" / "predictions.csv")) == 2


def test_its_wide_part_is_a_ridge_regression(folder):
  config = config_lib.read_run(folder)
  config.train.choice, config.model.wide, config.model.parts = "last", True, 2
  experiment = experiments.build(config, None)
  params = linear.fitted(experiment, random_params(experiment, 0))
  batches = experiment.batches("train", None, ordered=True)
  names = "terms", "targets", "document"
  rows = zip(*([*map(b.get, names)] for b in batches), strict=True)
  x_NF, y_NC, document_N = map(np.concatenate, rows)
  _, first = np.unique(document_N, return_index=True)
  x_NF, y_NC = x_NF[first], y_NC[first, 0]
  deviation_C = y_NC.std(0)
  y_NC = (y_NC - y_NC.mean(0)) / deviation_C

  def ridge(x_NF, y_NC, penalty):
    normal_FF = x_NF.T @ x_NF + penalty * np.eye(x_NF.shape[1])
    return np.linalg.solve(normal_FF, x_NF.T @ y_NC)

  def best(y_NC):
    """The ridge whose penalty leaves the least error of each by the others."""
    squares = {}
    for penalty in (0.1, 0.3, 1, 3, 10):
      others = (np.delete(np.arange(40), n) for n in range(40))
      tables = (ridge(x_NF[some], y_NC[some], penalty) for some in others)
      errors = [y - x @ t for x, y, t in zip(x_NF, y_NC, tables, strict=True)]
      squares[penalty] = np.square(errors).sum()
    penalty = min(squares, key=squares.__getitem__)
    return penalty, ridge(x_NF, y_NC, penalty)

  penalty, exact_FC = best(y_NC)
  assert penalty == 0.1
  np.testing.assert_allclose(3 * params["wide"]["table"], exact_FC, atol=1e-3)
  noise_NC = np.random.default_rng(0).normal(size=y_NC.shape)
  penalty, exact_FC = best(noise_NC)
  assert penalty > 1
  found_FC = linear._ridge(sparse.csr_matrix(x_NF), noise_NC)
  np.testing.assert_allclose(found_FC, exact_FC, atol=1e-3)

  # The layers are trained apart, and then count an eighth.
  batch = experiment.batches("validation", 0)[0]
  wide = params["wide"]
  other = {**params, "wide": {**wide, "table": 2 * wide["table"]}}
  head = {**params["head"], "bias": params["head"]["bias"] + 1}
  outputs = [
    np.array(experiment.predict(p, (), batch)[1])[:, 0] / deviation_C
    for p in (params, other, {**params, "head": head})
  ]
  wide_BC = 0.875 * 3 * batch["terms"] @ wide["table"]
  np.testing.assert_allclose(outputs[1] - outputs[0], wide_BC, 1e-3, 1e-3)
  np.testing.assert_allclose(outputs[2] - outputs[0], 0.125, 1e-3)
  key = jax.random.key(0)
  one, two = (experiment.loss(p, (), batch, key)[0] for p in (params, other))
  assert one == two


def test_its_simple_method_reads_large_numbers_but_not_one_text(
  folder, tmp_path
):
  config = config_lib.read_run(folder)
  config.data.label_column = "length"

  def result(unit, texts=None):
    for split in ("train", "validation", "test"):
      rows = read_csv(folder / split)[: texts if split == "test" else None]
      lines = [f"{row['text']},{unit * float(row['length'])}" for row in rows]
      (tmp_path / split).write_text("\n".join(["text,length", *lines, ""]))
      config.data[f"{split}_path"] = str(tmp_path / split)
    return simple.compare(experiments.build(config, None), config, "test")

  (_, large), (_, small) = result(1e20), result(1)
  assert large == pytest.approx(small, rel=1e-4)
  assert result(1, texts=1) is None  # r squared is not defined.


def test_its_check_compares_no_loss_with_log_v(main):
  status, said = main("check")
  assert status == 0, said.err
  assert "at the start" not in said.out and "no input is a target" in said.out


def test_a_missing_mode_is_refused_in_one_line(main, monkeypatch):
  def refused(mode, modes):
    status, said = main(mode)
    assert status == 2
    [line] = [x for x in said.err.splitlines() if not x.startswith("may read ")]
    assert line.startswith(f"error: --mode={mode}: task='regression' ")
    assert line.endswith(f"; its modes are {modes}")

  refused("sample", MODES)
  refused("detect", MODES)
  build = regression.build
  monkeypatch.setattr(
    regression, "build", lambda *args: build(*args)._replace(predict=None)
  )
  refused("predict", "train, evaluate, check, search, report, export, config")


def test_a_value_that_is_no_number_is_named(tmp_path):
  train, path = tmp_path / "train.csv", tmp_path / "t.csv"
  fields = {"task": "regression", "data.format": "csv", "data.path": None}
  fields |= {"data.train_path": str(train), "data.test_path": str(path)}
  faults = []
  one = r"the training split has one value of 'number', 1 in float32;"
  for value, other, message in (
    ('"4,81"', 2, r"test split: t.csv:2: number = '4,81': must be .* as 4.81"),
    ("1e39", 2, r"t.csv:2: number = '1e39': must be a number that float32"),
    ("1_03", 2, r"t.csv:2: number = '1_03': must be a number that float32"),
    ("", 2, r"t.csv:2: the column 'label' is empty"),
    ("1", 1, one),
    ("1", "1.00000001", one),
    ("1e-39", "2e-39", one.replace("1 in", "1e-39 in")),  # Zeros on devices.
  ):
    path.write_text(f"label,text\n{value},a\n")
    first = value if message.startswith("the training") else 1
    train.write_text(f"label,text\n{first},a\n{other},b\n")
    config = tiny(tmp_path, fields)
    try:
      experiments.build(config, None)
      faults.append(value)
    except UserError as error:
      if not re.search(message, str(error)):
        faults.append(str(error))
  assert not faults


def test_the_loss_does_not_depend_on_the_unit_of_a_table():
  targets_NC, numbers_NC = np.random.default_rng(0).normal(size=(2, 9, 1))
  for unit in (1e20, 1, 1e-23):  # float32 does not hold the first square.
    scale_2C = np.array([[0], [unit]], np.float32)
    figures = regression.figures(
      ["x"], scale_2C, unit * targets_NC, unit * numbers_NC
    )
    expected = ((targets_NC - numbers_NC) ** 2).mean()
    assert figures["loss"] == pytest.approx(expected, rel=1e-5), unit
    assert figures["rmse"] == pytest.approx(unit * expected**0.5), unit
    one = regression.figures(["x"], scale_2C, targets_NC[:1], numbers_NC[:1])
    assert one["r_squared"] == 0


def test_modes_follow_from_the_fields(tmp_path):
  gap = {"task": "gap_model"}
  music = {"task": "polyphony", "data.source": "chords"}
  labels = {"task": "classification", "data.format": "files"}
  for fields, lacks in (
    ({}, set()),
    ({**gap, "model.heads": "joint"}, {"sample"}),
    ({**gap, "model.heads": "all"}, set()),
    (music, {"predict", "embed", "detect", "review", "refresh"}),
    (labels, {"sample", "detect", "review", "refresh"}),
  ):
    task = experiments.build(tiny(tmp_path, fields), None)
    assert set(config_lib.MODES) - set(modes_of(task)) == lacks
    bare = task._replace(decoder=None, heads={})
    assert not {"sample", "detect", "review", "refresh"} & set(modes_of(bare))
