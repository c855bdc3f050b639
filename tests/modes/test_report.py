"""report: pages that are valid, ask for nothing, and say what is true."""

import base64
import csv
import functools
import gzip
import json
import re
import shutil
import subprocess
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from configs import base
from seqrnn import program
from seqrnn.config import read as config_lib
from seqrnn.data import vocabulary
from seqrnn.data.vocabulary import END, PAD, UNKNOWN
from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from seqrnn.modes import report
from seqrnn.reporting import (
  alarms,
  charts,
  gathering,
  neurons,
  page,
  subject,
  summary,
)
from seqrnn.runtime import checkpoint_writer
from seqrnn.table import without_shared
from seqrnn.training.history import add_row
from seqrnn.training.position import Position
from tests.conftest import Page, tiny, write_text

TOP = {"eyebrow": "e", "heading": "h", "text": "t"}
HOSTILE = "<script>alert(1)</script>&amp;\"'\x1b[31m\u202e]]>\u6f22\n"
LABELLED = {"task": "classification", "data.format": "tab"}
TASKS = {
  "language model": {"data.stateful": True, "model.embedding_size": 4},
  "events": {"data.unit": "session", "data.mapping": "many_to_one"},
  "gap model": {"task": "gap_model"},
  "all heads": {"task": "gap_model", "model.heads": "all"},
  "classification": LABELLED,
  "tagging": {"task": "tagging", "data.format": "spaces"},
  "polyphony": {
    "task": "polyphony",
    "data.source": "chords",
    "data.window": 32,
    "train.batch_size": 32,
  },
}
WRITES = [
  "Samples",
  "Surprisal of a text",
  "Interpretable units",
  "Gates",
]
SECTIONS = {
  "language model": WRITES,
  "events": ["Samples", "Surprisal of a text"],
  "gap model": ["Predictions in gaps"],
  "all heads": ["Predictions in gaps", *WRITES],
  "classification": [
    "Confusion of labels",
  ],
  "tagging": ["Tagged text", "Confusion of labels"],
  "polyphony": ["Sampled music"],
}


def drawn(experiment, scale):
  """Parameters that no training has made."""
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.array(rng.normal(0, scale, x.shape), x.dtype)
  return jax.tree.map(draw, shapes(experiment))


def begun(folder, fields):
  """A run as if it had been trained."""
  config = tiny(folder, {**fields, "train.cpu_devices": 4})
  experiment = experiments.build(config, None)
  workdir = folder / "run"
  workdir.mkdir()
  vocabulary.save(workdir / "vocabulary.json", experiment.vocabularies)
  config_lib.save(config, workdir / "config.json")
  params = drawn(experiment, 0.3)
  crc32 = experiment.facts("train")["crc32"]
  position = Position(step=7, best_step=7, crc32=crc32)
  with checkpoint_writer.Checkpoints(workdir / "checkpoints") as checkpoints:
    rest = {"none": jnp.zeros(1)}
    checkpoints.save(7, params, rest, asdict(position), 7)
  for step in (3, 7):
    row = {"step": step, "epoch": 0, "learning_rate": 0.1, "gradient_norm": 1.0}
    both = {"loss": 9.0 / step, "accuracy": 0.1 * step}
    figures = {
      f"{s}_{n}": v for s in ("train", "validation") for n, v in both.items()
    }
    add_row(workdir / "metrics.csv", row | figures)
    add_row(workdir / "timing.csv", {"step": step, "symbols_per_second": 5.0})
  return config, workdir


def write_corpus(folder, name):
  """What the task of TASKS reads; its symbols would like to be markup."""
  if name in ("classification", "events"):
    lines = [
      f"{'ab'[n % 2]}<b>\t{'xy'[n % 2] * (n % 7 + 1)}<i>&z" for n in range(90)
    ]
    if name == "events":
      lines = [
        " ".join("<b>" * (n % 5 + 2) for n in range(k % 9 + 2))
        for k in range(90)
      ]
    (folder / "lines.txt").write_text("\n".join(lines))
    return folder / "lines.txt"
  corpus = write_text(folder, documents=12, symbols=300)
  (corpus / "hostile.txt").write_text(HOSTILE * 60, "utf-8")
  return corpus


def read(path):
  """The page, which has no fault."""
  content = path.read_text("utf-8")
  assert content.startswith("<!doctype html>\n<html")
  found = Page(content)
  assert found.faults == []
  assert "built-in" not in content  # A key that is a method of a dictionary.
  assert len(set(found.ids)) == len(found.ids)
  scripts = [attrs for tag, attrs in found.tags if tag == "script"]
  data = [attrs for attrs in scripts if attrs.get("type") == "application/json"]
  assert len(scripts) == len(data) + 1  # One is the page's.
  assert not re.search(r"url\(|@import|fetch\(|XMLHttp", content)
  shown = found.text.replace("\n", "").replace("\t", "")
  assert shown.isprintable()
  return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A function name of TASKS -> config and workdir, made once."""
  made = {}

  def get(name):
    if name not in made:
      folder = tmp_path_factory.mktemp("run")
      fields = dict(TASKS[name])
      if name != "polyphony":
        fields["data.path"] = str(write_corpus(folder, name))
      made[name] = begun(folder, fields)
    return made[name]

  return get


@pytest.fixture(scope="module")
def pages(runs):
  """A function name of TASKS -> its page, written once."""

  @functools.cache
  def get(name):
    config, workdir = runs(name)
    return report.run(experiments.build, config, workdir)

  return get


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_page(name, pages):
  found = read(pages(name))
  common = ["Training", "Metrics", "Configuration"]
  assert set(SECTIONS[name] + common) <= set(found.titles)
  assert found.titles[-3:] == common
  links = [attrs.get("href") for _, attrs in found.tags]
  assert ("playground.html" in links) == ("Gates" in SECTIONS[name])
  for field in ("data.window", "model.hidden_size"):
    assert field in found.text
  assert "schedule.factor" not in found.text  # As the default has it.
  curves = [a["aria-label"] for t, a in found.tags if "aria-label" in a]
  assert any(
    "training goes from 3 at step 3 to 1.286 at 7" in c for c in curves
  )


def test_a_page_without_data_says_why(runs, tmp_path):
  config, workdir = runs("language model")
  config = config.copy_and_resolve_references()
  config.data.path = str(tmp_path / "gone")
  workdir = shutil.copytree(workdir, tmp_path / "run")
  found = read(report.run(experiments.build, config, workdir))
  assert "no such file" in found.text
  assert found.titles == [
    "Samples",
    "Training",
    "Metrics",
    "Configuration",
  ]


@pytest.mark.parametrize("name", ["all heads", "tagging", "polyphony"])
def test_a_page_says_of_no_split_what_is_not_so(name, runs, pages):
  config, workdir = runs(name)
  own = subject.open_run(experiments.build, config, workdir)
  assert (own.other, own.caution) == ("", "")
  text = read(pages(name)).text
  # The page of a run whose data are as they were.
  assert "which it was not trained on" in text
  assert "which it was trained on" not in text and "may have" not in text
  # Held-out data are gone.
  alone = own._replace(facts={"train": own.facts["train"]})
  told = texts(alone)
  assert "which it was trained on" in told
  assert "which it was not trained on" not in told
  assert "No held-out split can be read here" in told
  # The training data have changed.
  path = workdir / "checkpoints/7/position/metadata"
  with pytest.MonkeyPatch.context() as patch:
    position = {**json.loads(path.read_text()), "crc32": 1}
    patch.setattr(subject, "read_position", lambda _: position)
    other = subject.open_run(experiments.build, config, workdir)
  assert other.other == "the training split has changed since"
  told = texts(other)
  assert "The data of this page are not the run's own" in told
  assert "which it was not trained on" not in told
  assert "which it was trained on" not in told


def texts(own):
  """All that the sections on a subject say."""
  top = summary.lead(own, {})
  return Page(page.render("", top, report.learned(own))).text


def test_fields_say_which_data_are_read(runs):
  config, workdir = runs("language model")

  def other(**fields):
    changed = config.copy_and_resolve_references()
    changed.data.update(fields)
    return subject.open_run(experiments.build, changed, workdir).other

  assert other(step=3, buckets=2) == ""  # The same texts.
  assert other(test_fraction=0.3).endswith("data.test_fraction")
  # The same files in another folder.
  moved = shutil.copytree(config.data.path, workdir.parent / "moved")
  assert other(path=str(moved)) == ""


def test_what_training_did_not_do_is_not_said(runs, pages, tmp_path):
  config, workdir = runs("language model")
  text = read(pages("language model")).text
  assert "noise" not in text and "dropout" not in text
  random = config.copy_and_resolve_references()
  random.model.weight_drop = 0.1
  assert summary.noisy(random) and not summary.noisy(config)
  # A run that was stopped before its first evaluation.
  copy = shutil.copytree(workdir, tmp_path / "run")
  for name in ("metrics.csv", "timing.csv"):
    (copy / name).unlink()
  (copy / "detect").mkdir()
  record = {"step": 3, "figures": {"combined": {"flagged": 1}}}
  scores = {"names": ["max"], "injected": {"average_precision": None}}
  record["calibration"] = {"scores": scores, "left_out": 0}
  (copy / "detect/report.json").write_text(json.dumps(record))
  text = read(report.run(experiments.build, config, copy)).text
  assert "has no evaluation yet" in text
  assert "run with the checkpoint of step 3, not with that of step 7" in text
  assert "not evaluated" in read(gathering.write([copy, workdir])[0]).text


def test_losses_of_different_things_are_not_compared(runs, tmp_path):
  (_, one), (_, other) = runs("language model"), runs("events")
  apart = "The runs differ in data.unit, the training data, so their"
  assert apart in read(gathering.write([one, other])[0]).text
  same = shutil.copytree(one, tmp_path / "same")
  assert "The runs differ" not in read(gathering.write([one, same])[0]).text


def test_runs_are_compared(runs, capsys):
  (_, one), (_, other) = runs("language model"), runs("gap model")
  path, table = gathering.write([one, other])
  found = read(path)
  assert path == one / "comparison.html"
  assert "data.stateful" in found.text and "gap_model" in found.text
  parts = ["Best evaluation of each run", "Training", "Fields that differ"]
  assert found.titles[-3:] == parts
  assert "model.hidden_size" not in found.text  # The same in both.
  line = [f"--workdir={one},{other}", "--mode=report"]
  assert program.main(["run.py", *line]) == 0
  assert repr(table) in capsys.readouterr().out
  names = without_shared(table["run"].tolist())
  for row, name in zip(table.cells(), names, strict=True):
    assert all(cell in found.text for cell in [name, *row[1:]])
  pattern = f"{one},{other.parent}/r?n"
  assert program.main(["run.py", f"--workdir={pattern}", line[1]]) == 0
  assert repr(table) in capsys.readouterr().out
  assert program.main(["run.py", f"{line[0]},nowhere", line[1]]) == 2
  assert capsys.readouterr().err.splitlines() == [
    "error: --workdir=nowhere: has no run; train it first"
  ]


def test_a_study_has_a_page(tmp_path):
  config_lib.save(base.get_config(), tmp_path / "search.json")
  (tmp_path / "trials.csv").write_text(
    "trial,state,loss,seconds,optimizer.learning_rate,error\n"
    "0,finished,2.5,1,0.001,\n1,failed,,1,9,<b>\n2,finished,1.25,1,0.01,\n"
  )
  (tmp_path / "search-history.png").write_bytes(b"PNG")
  line = [f"--workdir={tmp_path}", "--mode=report"]
  assert program.main(["run.py", *line]) == 0
  found = read(tmp_path / "report.html")
  assert found.text.index("1.25") < found.text.index("2.5")
  assert "3 trials, 2 of them with a validation loss" in found.text
  [image] = [attrs for tag, attrs in found.tags if tag == "img"]
  assert base64.b64decode(image["src"].split(",")[1]) == b"PNG"
  (tmp_path / "trials.csv").write_text("trial,loss\n0,high\n")
  with pytest.raises(UserError, match="trials.csv: must be as --mode=search"):
    summary.search(tmp_path)


@pytest.mark.parametrize("form", ["csv", "jsonl.gz"])
def test_odd_sessions_are_shown(form, tmp_path):
  folder = tmp_path / "detect"
  folder.mkdir()
  tables = {
    "incidents": [
      {
        "severity": "high",
        "sessions": 3 + n,
        "p_value": "" if n == 21 else 0.001 * n,
        "reason": "count_vector",
        "event": f"kind {n}",
        "example": "x <i>",
        "line": 7000 + n,
        "before": "a b | b",
        "after": "c",
      }
      for n in (0, *range(1, 21), 21)
    ],
    "sessions": [
      {
        "session": f"s<{n}>",
        "events": 30,
        "p_value": 0.5,
        "flag": n == 7,
        "combined": abs(n - 4) + n / 9,
      }
      for n in range(9)
    ],
    "events": [
      {
        "session": "s<8>",
        "event": f"e{n}",
        "bits": n / 3,
        "flag": n == 20,
        "event_1": "<i>",
        "probability_1": 0.25,
      }
      for n in range(30)
    ],
  }
  for name, rows in tables.items():
    rows = [
      {k: int(v) if isinstance(v, bool) else v for k, v in r.items()}
      for r in rows
    ]
    path = folder / f"{name}.{form}"
    if form == "csv":
      with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
      with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
  page.write(tmp_path / "page.html", "odd", TOP, alarms.sections(tmp_path))
  found = read(tmp_path / "page.html")
  row = "high3 sessionsunusual counts of eventsp 0a bbkind 0cx <i>line 7000"
  assert row in found.text  # The cells of a row.
  assert "kind 19" in found.text and "kind 20" not in found.text
  assert f"More incidents are in incidents.{form}." in found.text
  order = re.findall(r"s<(\d)>", found.text)
  assert order[:3] == ["8", "0", "7"]
  assert "e12 " in found.text and "e11 " not in found.text
  (folder / f"sessions.{form}").write_bytes(b"session\n\xff")
  with pytest.raises(UserError, match="run --mode=detect again"):
    alarms.sections(tmp_path)


def test_what_is_odd_in_a_text_is_escaped(tmp_path):
  marks = [page.Mark(c, c, 1.0, [(c, 0.5)]) for c in HOSTILE]
  part = page.section(
    HOSTILE,
    "surprisal",
    split=HOSTILE,
    learned=HOSTILE,
    reading=page.coloured(marks, 8.0, HOSTILE),
  )
  series = {HOSTILE: ((1, 2), (3.0, 4.0)), "$b$": ((1,), (2.0,))}
  chart = charts.lines(HOSTILE, series, "x", HOSTILE)
  data = {"split": "", "begin": HOSTILE, "charts": [chart]}
  music = page.section("Music", "music", **data)
  page.write(tmp_path / "a.html", HOSTILE, TOP, [part, music])
  found = read(tmp_path / "a.html")
  assert HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e") in (
    found.text
  )
  content = (tmp_path / "a.html").read_text("utf-8")
  [data] = re.findall(r"application/json[^>]*>(.*?)</script>", content)
  names = json.loads(data)["names"]
  assert "<" in names and "\\x1b" in names and "<" not in data
  [svg] = re.findall(r"<svg.*?</svg>", content, re.DOTALL)
  assert svg == charts.lines(HOSTILE, series, "x", HOSTILE)["svg"].strip()
  assert not re.search(": #", svg)  # All colours are variables of the page.


# Cells.

TEXT = '''\
f(a, (e), "b(c", 'd\\'e')  # x(y "z"
  it's [1,
"""p " q
 r"""!
'''


def test_properties_of_a_text():
  found = neurons.properties(TEXT)

  def true(name):
    flags = found[name] > 0
    return "".join(c for c, flag in zip(TEXT, flags, strict=True) if flag)

  assert true("inside a comment") == '# x(y "z"'
  assert true("inside quotes") == "\"b(c'd\\'e"
  assert true("inside triple quotes") == '"""p " q\n r'
  assert true("inside brackets") == (
    "(a, (e), \"b(c\", 'd\\'e'" + "[1,\n" + '"""p " q\n r"""!\n'
  )
  lines = [line + "\n" for line in TEXT.split("\n")[:-1]]
  column = [n for line in lines for n in range(1, len(line))]
  newline = np.array([c == "\n" for c in TEXT])
  assert found["position in the line"][~newline].tolist() == column
  assert not found["position in the line"][newline].any()
  blanks = [len(x) - len(x.lstrip(" ")) for x in lines]
  ends = found["indentation of the line"][np.flatnonzero(newline) - 1]
  assert ends.tolist() == blanks


def test_a_unit_is_chosen_on_one_text_and_scored_on_another():
  rng = np.random.default_rng(0)
  values = [rng.integers(0, 5, 400).astype(float) for _ in range(2)]
  noise = rng.normal(size=(2, 400, 6))
  trained = noise.copy()
  trained[0, :, 2] += 3 * values[0]  # Good here, and less so there.
  trained[1, :, 2] += values[1]
  trained[1, :, 4] += 9 * values[1]  # Better, but only there.
  first, second = (
    neurons.Text({"p": v, "none": np.zeros(400)}, t, u)
    for v, t, u in zip(values, trained, noise, strict=True)
  )
  [found] = neurons.find(first, second)
  assert (found.name, found.state) == ("p", 2)
  r = np.corrcoef(trained[1, :, 2], values[1])[0, 1]
  assert found.share == pytest.approx(r**2)
  assert found.untrained < 0.05 and found.clear
  [weak] = neurons.find(second._replace(trained=noise[1]), first)
  assert weak.share < 0.1 and not weak.clear


@pytest.mark.parametrize("name", ["language model", "events"])
def test_a_text_is_read_as_the_decoder_does(name, runs):
  config, workdir = runs(name)
  own = subject.open_run(experiments.build, config, workdir)
  decoder = own.experiment.decoder
  rng = np.random.default_rng(1)
  ids_BS = rng.integers(END + 1, len(own.symbols), (3, 7), np.int32)
  reading = neurons.reader(decoder, 2)(own.params, ids_BS)
  carry, step = decoder.start(3), jax.jit(decoder.step)
  for t in range(6):
    carry, logits_BV = step(own.params, carry, ids_BS[:, t])
    chances_BV = np.asarray(jax.nn.log_softmax(logits_BV))
    own_B = -chances_BV[np.arange(3), ids_BS[:, t + 1]]
    np.testing.assert_allclose(reading.surprisal[:, t], own_B, rtol=1e-4)
    assert (reading.ids[:, t, 0] == chances_BV.argmax(1)).all()
    np.testing.assert_allclose(
      reading.probabilities[:, t, 0], np.exp(chances_BV.max(1)), rtol=1e-4
    )
  expected = np.zeros((3, 0))  # Of a window that is read anew.
  if name == "language model":  # (c, h) of one layer.
    expected = np.tanh(carry[0][0])
  np.testing.assert_allclose(reading.states[:, -1], expected, rtol=1e-4)


def test_a_gap_model_writes_as_its_forward_head_does(runs):
  config, workdir = runs("all heads")
  own = subject.open_run(experiments.build, config, workdir)
  writer = subject.writer(own)
  assert writer is not None and writer.params.keys() == {"body", "head"}
  rng = np.random.default_rng(1)
  ids_BS = rng.integers(END + 1, len(own.symbols), (3, 7), np.int32)
  found = neurons.reader(writer.experiment.decoder, 2)(writer.params, ids_BS)
  forward = own.experiment.heads["forward"]
  _, logits_BSV = forward(own.params, (), {"inputs": ids_BS})
  chances_BSV = jax.nn.log_softmax(logits_BSV)
  nll_BS1 = -np.take_along_axis(chances_BSV, ids_BS[..., None], axis=2)
  np.testing.assert_allclose(found.surprisal, nll_BS1[:, 1:, 0], rtol=1e-4)


@pytest.mark.parametrize(("cell", "embedding"), [("lstm", None), ("gru", 3)])
def test_gates_that_are_all_but_shut_or_open(cell, embedding, tmp_path):
  fields = {
    "model.cell": cell,
    "model.layers": 2,
    "model.hidden_size": 5,
    "model.embedding_size": embedding,
  }
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  params = drawn(experiment, 1.5)  # With smaller ones, no gate would be.
  step = jax.jit(experiment.decoder.step)
  rng = np.random.default_rng(0)
  ids_BT = rng.integers(UNKNOWN, 9, (4, 6), np.int32)
  ids_BT[0, 4:] = PAD
  found = neurons.saturation(config, params, experiment.decoder, ids_BT)
  names = {"lstm": "ifgo", "gru": "run"}[cell]
  tree = jax.tree.map(np.float64, params)
  layers = [tree["body"][f"layers_{depth}"]["cell"] for depth in range(2)]
  h_of = lambda layer: np.asarray(layer[1] if cell == "lstm" else layer)[0]
  gates = {}
  for ids_T in ids_BT:
    carry = experiment.decoder.start(1)
    for i in ids_T[ids_T > PAD]:
      before = carry
      carry, _ = step(params, carry, np.array([i]))
      x = np.eye(len(experiment.vocabularies["symbols"]))[i]
      if embedding:
        x = tree["embedding"]["embedding"][i]
      for depth, own in enumerate(layers):
        [kernel] = jax.tree.leaves(own["input_kernel"])
        h = h_of(before[depth])
        a = x @ kernel + own["bias"] + h @ own["recurrent_kernel"]
        for name, row in zip(names, a.reshape(-1, 5), strict=True):
          gates.setdefault((depth, name), []).append(1 / (1 + np.exp(-row)))
        x = h_of(carry[depth])
  for each in found:
    values = np.stack(gates[each.layer - 1, each.gate[0]])
    assert each.low == pytest.approx((values < 0.1).mean(), abs=1e-6)
    assert each.high == pytest.approx((values > 0.9).mean(), abs=1e-6)
  assert sum(each.low + each.high for each in found) > 0.5
  assert len(found) == {"lstm": 6, "gru": 4}[cell]


# In a browser.

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")
def test_a_browser_shows_it_without_a_fault(pages, tmp_path):
  assert CHROMIUM is not None
  done = subprocess.run(
    [
      CHROMIUM,
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      f"--user-data-dir={tmp_path / 'user'}",
      "--enable-logging=stderr",
      "--window-size=390,2000",
      "--virtual-time-budget=2000",
      "--dump-dom",
      pages("language model").as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=600,
  )
  # An error of the script, or a request, which the page forbids itself.
  assert "CONSOLE" not in done.stderr
  # The script has chosen a symbol and told what was expected there.
  [said] = re.findall(
    r'class="predicted card"[^>]*>(.*?)</div></div>', done.stdout
  )
  assert re.search(r"had probability [\d.]+ %: [\d.]+ bits", said)
  # On a phone, the table of metrics says that it is wider than its box.
  assert 'class="scroll wide"' in done.stdout
