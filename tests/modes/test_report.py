"""report: pages that are valid, load nothing and have all sections."""

import functools
import json
import re
import shutil
from types import SimpleNamespace

import jax
import jinja2
import numpy as np
import pytest

from seqrnn import cli, experiments
from seqrnn.data.documents import Document
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.modes import report
from seqrnn.reporting import alarms, charts, gathering, language, page
from seqrnn.reporting.subject import coloured_text
from seqrnn.run import load_run
from seqrnn.scoring.predictions import Prediction, Ranking
from seqrnn.training.history import add_row
from tests.conftest import Page, save_run, tiny, write_text
from tests.templates import Recorder

TOP = page.Heading("e", "h", "t")
HOSTILE = "<script>alert(1)</script>&amp;\"'\x1b[31m\u202e]]>\u6f22\n"
TASKS = {
  "language model": {"data.stateful": True, "model.embedding_size": 4},
  "gap model": {"task": "gap_model"},
  "tagging": {
    "task": "tagging",
    "data.format": "columns",
    "data.unit": "word",
    "model.embedding_size": 4,
  },
  "polyphony": {
    "task": "polyphony",
    "data.source": "chords",
    "data.window": 32,
    "train.batch_size": 32,
  },
}
COMMON = ["Training", "Metrics", "Configuration"]
WRITES = ["Samples", "Surprisal of a text"]
SECTIONS = {
  "language model": WRITES,
  "gap model": ["Predictions in gaps"],
  "tagging": ["Tagged text", "Confusion of labels", "Spans", "Mistakes"],
  "polyphony": [],
}


def begun(folder, fields):
  """A run as if it had been trained."""
  config = tiny(folder, {**fields, "train.cpu_devices": 4})
  workdir = folder / "run"
  save_run(config, workdir)
  for step in (3, 7):
    row = {"step": step, "epoch": 0, "learning_rate": 0.1, "gradient_norm": 1.0}
    both = {"loss": 9.0 / step, "accuracy": 0.1 * step}
    figures = {
      f"{s}_{n}": v for s in ("train", "validation") for n, v in both.items()
    }
    add_row(workdir / "metrics.csv", row | figures)
    add_row(workdir / "timing.csv", {"step": step, "symbols_per_second": 5.0})
  return config, workdir


def read(path):
  """The page, which has no fault."""
  content = path.read_text("utf-8")
  assert content.startswith("<!doctype html>\n<html")
  page = Page(content)
  assert page.faults == []
  assert "built-in" not in content  # A key that is a method of a dictionary.
  assert len(set(page.ids)) == len(page.ids)
  scripts = [attrs for tag, attrs in page.tags if tag == "script"]
  data = [attrs for attrs in scripts if attrs.get("type") == "application/json"]
  assert len(scripts) == len(data) + 1  # One is the page's.
  assert not re.search(r"url\(|@import|fetch\(|XMLHttp", content)
  shown = page.text.replace("\n", "").replace("\t", "")
  assert shown.isprintable()
  return page


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A function name of TASKS -> config and workdir, made once."""

  @functools.cache
  def get(name):
    folder = tmp_path_factory.mktemp("run")
    fields = dict(TASKS[name])
    if name != "polyphony":  # The symbols would like to be markup.
      corpus = write_text(folder, documents=8, symbols=300)
      (corpus / "hostile.txt").write_text(HOSTILE * 60, "utf-8")
      fields["data.path"] = str(corpus)
    if name == "tagging":  # A person of each sentence is in no other one.
      fields["data.path"] = str(folder / "names.txt")
      sentence = f"Ann{{}} B-PER\n{HOSTILE.strip()} I-PER\nleft O\n\n"
      text = "".join(map(sentence.format, range(60)))
      (folder / "names.txt").write_text(text, "utf-8")
    return begun(folder, fields)

  return get


@pytest.fixture(scope="module")
def pages(runs):
  """A function name of TASKS -> its page, written once."""

  @functools.cache
  def get(name):
    return report.run(experiments.build, *runs(name))

  return get


def check_task(name, pages):
  page = read(pages(name))
  assert set(SECTIONS[name] + COMMON) <= set(page.titles)
  assert page.titles[-3:] == COMMON
  links = [attrs.get("href") for _, attrs in page.tags]
  assert ("playground.html" in links) == (SECTIONS[name] == WRITES)
  for field in ("data.window", "model.hidden_size"):
    assert field in page.text
  assert "schedule.factor" not in page.text  # As the default has it.
  curves = [a["alt"] for t, a in page.tags if t == "img"]
  assert any(
    "training goes from 3 at step 3 to 1.286 at 7" in c for c in curves
  )


def test_tags_of_unknown_words_are_shown_with_the_words(pages):
  page = read(pages("tagging"))
  tagged, spans = page.text.split("The first row counts all spans")
  assert "\ufffd" not in page.text
  assert len(set(re.findall(r"Ann\d+", tagged))) > 1
  assert re.search(r"PER(\d|\.)+", spans)


LONG = "w" * 400  # Nowhere can a line of it be broken.


def mistaken(label, surprisal, name="", read=("",)):
  """A text with a mistaken label, or a word with a mistaken tag."""
  T = len(read)
  nll_N = np.full(1, surprisal)
  rows = np.full(T, UNKNOWN + 1), [*read], np.array([T // 2]), np.zeros(1)
  likely = np.zeros((1, 1), int), np.full((1, 1), 0.75)
  return Prediction(0, *rows, [label], nll_N, *likely, likely=[[name]])


def listed(monkeypatch, rows, **task):
  """The section on mistakes of a task that has made these predictions."""
  monkeypatch.setattr(language, "predictions", lambda *_: iter(rows))
  subject = SimpleNamespace(
    splits=["test"],
    params=None,
    config=SimpleNamespace(data=SimpleNamespace(unit="word")),
    experiment=SimpleNamespace(names=True, **task),
  )
  return language.mistakes(subject)


def test_the_worst_mistakes_of_each_label_are_listed(monkeypatch, tmp_path):
  rows = [mistaken("often", 9 + n, "rare", [f"{n}", LONG]) for n in range(40)]
  rows += [mistaken("rare", n, "often", [f"r{n}"]) for n in range(3)]
  rows.append(mistaken("right", 99.0, "right", ["right"]))
  [part] = listed(monkeypatch, rows, by_text=True)
  texts = [text[:2] for text, *_ in part.data["rows"]]
  assert texts == [*(f"{n}" for n in range(39, 29, -1)), "r2", "r1", "r0"]
  assert part.data["rows"][-1][1:] == ("rare", "often, 75%")
  page.write_page(tmp_path / "page.html", "mistakes", TOP, [part])
  assert "worst mistakes of each true label in 44 texts" in read(
    tmp_path / "page.html"
  ).text.replace("\n", " ")
  # Of more labels than rows, each has its worst, the worst of all first.
  rows = [mistaken(f"label {n % 30}", n, "", [f"{n}"]) for n in range(60)]
  [part] = listed(monkeypatch, rows, by_text=True)
  assert [row[0] for row in part.data["rows"]] == [
    f"{n}" for n in range(59, 39, -1)
  ]
  # A tag has its word, with the words around it.
  words = [f"{n}" for n in range(30)]
  word = mistaken("A", 1.0, "B", words)
  both = {
    name: np.concatenate([getattr(word, name)] * 2)
    for name in ("positions", "targets", "surprisal", "probabilities")
  }
  rows = [word._replace(truth=["A", "C"], likely=[["B"], ["C"]], **both)]
  [part] = listed(monkeypatch, rows, by_text=False)
  around = " ".join(words[3:28])
  assert part.data["rows"] == [("15", "A", "B, 75%", around)]
  [none] = listed(monkeypatch, rows[:0], by_text=False)
  page.write_page(tmp_path / "page.html", "mistakes", TOP, [part, none])
  assert "None in 0 texts of the test split" in (
    tmp_path / "page.html"
  ).read_text("utf-8")


def test_unknown_symbols_are_shown_as_the_data_have_them(monkeypatch):
  """Masked, as lines of a log are; with the true tag, if there are tags."""
  mask = lambda line: line.replace("secret", "<*>")
  lines = Vocabulary("log", ("a <*>",), mask=mask)
  ids = np.array([[BEGIN, UNKNOWN + 1, UNKNOWN, END]], np.int32)
  zeros = np.zeros((1, 3, 1))
  likely = Ranking(zeros[..., 0], zeros.astype(int), zeros)
  monkeypatch.setattr(language, "next_symbols", lambda *_: likely)
  text = [Document("d", ["a 1", "a secret"], True, True)]
  monkeypatch.setattr(language, "passages", lambda *_: text)
  monkeypatch.setattr(language, "encoded", lambda *_: ids)
  subject = SimpleNamespace(
    symbols=lines,
    params=None,
    config=SimpleNamespace(data=SimpleNamespace(boundaries=True)),
    experiment=SimpleNamespace(decoder=()),
    read=lambda _: None,
  )
  part = language.surprises(subject, "test").data["reading"]
  assert [text for text, _ in part.spans][1] == "a <*>\n"
  assert "a <*> (unknown)" in part.names
  labels = Vocabulary("id", ("A", "B"))
  rows = [mistaken("A", 1.0, "B", ["word"])._replace(targets=np.array([4]))]
  subject.symbols = Vocabulary("word", ("word",))
  part = coloured_text(subject, rows, labels)
  assert "word, A," in part.names
  rows = [row._replace(document=n // 2) for n, row in enumerate(rows * 3)]
  part = coloured_text(subject, rows, labels)  # Two windows of the first text.
  text = "".join(text for text, _ in part.spans)
  assert text == "word word \nword "


def test_a_sample_of_blanks_says_so(tmp_path):
  samples = [("0.3", " " * 479 + "\n"), ("0.6", ""), ("0.9", " ab")]
  drawn = {"samples": samples, "prime": "p", "quoted": "'p'"}
  part = page.Section("Samples", "samples", drawn)
  page.write_page(tmp_path / "page.html", "samples", TOP, [part])
  text = read(tmp_path / "page.html").text
  assert text.count("480 of 480 characters are blanks.") == 1
  assert text.count("blanks") == 1 and "p(nothing)" in text and "p ab" in text


def check_page_without_data(runs, tmp_path):
  config, workdir = runs("language model")
  config = config.copy_and_resolve_references()
  config.data.path = str(tmp_path / "gone")
  config.model.products, config.sample.prime = "bfloat16", "ab"
  workdir = shutil.copytree(workdir, tmp_path / "run")
  # It was stopped before its first evaluation, and detected before.
  for name in ("metrics.csv", "timing.csv"):
    (workdir / name).unlink()
  (workdir / "detect").mkdir()
  record = {
    "data": {
      "examined": {
        "sessions": 1,
        "flagged": {"low": 1, "medium": 0, "high": 0},
        "flagged_for_their_length": 0,
      }
    },
    "basis": ["by max"],
    "figures": {"combined": {"flagged": 1}},
  }
  (workdir / "detect/report.json").write_text(json.dumps(record))
  (workdir / "detect/incidents.csv").write_text("severity,sessions\n")
  page = read(report.run(experiments.build, config, workdir))
  assert page.titles[-4:] == ["Samples", *COMMON]
  for text in (
    "no such file",
    "cannot be read here, so this page shows none",
    "has no evaluation yet",
    "by max",
    "No playground: config.model.products='bfloat16': must be",
    "All samples continue 'ab'.",
    "No session is flagged.",
  ):
    assert text in page.text, text


def check_comparison(runs, capsys, monkeypatch, tmp_path):
  (_, one), (_, other) = runs("language model"), runs("gap model")
  path, table = gathering.write_comparison([one, other])
  page = read(path)
  assert path == one / "comparison.html"
  assert "data.stateful" in page.text and "gap_model" in page.text
  assert "The runs differ in task, data.path, so their losses" in page.text
  assert page.titles == ["Best evaluation of each run", "Training"]
  assert "model.hidden_size" not in page.text  # The same in both.
  line = [f"--workdir={one},{other}", "--mode=report"]
  assert all(cell in page.text for row in table for cell in row)
  pattern = f"{one},{other.parent}/r?n"
  assert cli.main(["run.py", f"--workdir={pattern}", line[1]]) == 0
  printed = capsys.readouterr().out
  assert str(path) in printed
  assert "task=gap_model" in printed and "data.stateful=True" in printed
  table = ["run", "model.cell", "state"], ["[b]", "gru", "finished"]
  with monkeypatch.context() as patch:
    patch.setattr(gathering, "write_comparison", lambda _: (path, table))
    report.run(experiments.build, None, tmp_path / "none")
  printed = capsys.readouterr().out
  assert re.search(r"\[b\] +model.cell=gru +finished", printed)
  assert cli.main(["run.py", f"{line[0]},nowhere", line[1]]) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith("error: --workdir=nowhere: has no run; train one")


def check_incidents(tmp_path):
  folder = tmp_path / "detect"
  folder.mkdir()
  head = "severity,sessions,p_value,reason,event,example,line,before,after\n"
  incidents = [
    f"high,{3 + n},{'' if n == 21 else 0.001 * n},unusual counts of events,"
    f"kind {n},x <i>,{7000 + n},a b | b,c\n"
    for n in range(22)
  ]
  (folder / "incidents.csv").write_text(head + "".join(incidents))
  counts = {"low": 0, "medium": 4, "high": 1296}
  examined = {"sessions": 2400, "flagged": counts}
  examined["flagged_for_their_length"] = 0
  record = {"data": {"examined": examined}, "basis": []}
  record["figures"] = {"combined": {"flagged": 1300, "f1": 0.875}}
  record["changes"] = [{"event": "a $ new", "shares": [0, 0, 0.5, 0.25]}]
  (folder / "report.json").write_text(json.dumps(record))
  tiles, [part] = alarms.read_anomalies(tmp_path)
  assert tiles == [("1,300 of 2,400", "sessions flagged")]
  page.write_page(tmp_path / "page.html", "detect", TOP, [part])
  found = read(tmp_path / "page.html")
  row = "high3 sessionsunusual counts of eventsp 0a bbkind 0cx <i>line 7000"
  assert row in found.text  # The cells of a row.
  assert "1,300 of 2,400 sessions flagged (4 medium, 1,296 high)" in found.text
  assert "kind 19" in found.text and "kind 20" not in found.text
  assert "combined13000.875" in found.text
  assert "Events that change during training" in found.text
  assert "More incidents are in incidents.csv." in found.text
  (folder / "incidents.csv").write_bytes(b"session\n\xff")
  with pytest.raises(UserError, match="run --mode=detect again"):
    alarms.read_anomalies(tmp_path)


def test_a_page_for_every_task_and_every_branch_of_the_templates(
  pages, runs, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(jinja2, "Environment", Recorder)
  for name in TASKS:
    check_task(name, pages)
  check_page_without_data(runs, tmp_path)
  check_comparison(runs, capsys, monkeypatch, tmp_path)
  check_incidents(tmp_path)
  test_a_sample_of_blanks_says_so(tmp_path)
  test_the_worst_mistakes_of_each_label_are_listed(monkeypatch, tmp_path)
  left = Recorder.not_rendered("page.html.jinja", "sections.html.jinja")
  assert not left, "\n".join(left)


@pytest.mark.usefixtures("rendered")
def test_markup_and_controls_of_a_text_are_escaped(tmp_path):
  marks = [page.Mark(c, c, 1.0, [(c, 0.5)]) for c in HOSTILE]
  text = page.coloured(marks, 8.0)
  data = {"split": HOSTILE, "reading": text}
  part = page.Section(HOSTILE, "surprisal", data)
  series = {HOSTILE: ((1, 2), (3.0, 4.0)), "$b$": ((1,), (2.0,))}
  chart = charts.lines(HOSTILE, series, "x", HOSTILE)
  assert chart == charts.lines(HOSTILE, series, "x", HOSTILE)
  curve = page.Section("Curves", "training", {"charts": [chart], "runs": 1})
  page.write_page(tmp_path / "a.html", HOSTILE, TOP, [part, curve])
  text = read(tmp_path / "a.html").text
  assert HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e") in text
  content = (tmp_path / "a.html").read_text("utf-8")
  [data] = re.findall(r"application/json[^>]*>(.*?)</script>", content)
  names = json.loads(data)["names"]
  assert "<" in names and "\\x1b" in names and "<" not in data


def test_a_text_is_read_as_the_decoder_does(runs):
  _, workdir = runs("language model")
  run = load_run(workdir)
  decoder, symbols = run.experiment.decoder, run.experiment.vocabularies
  rng = np.random.default_rng(1)
  ids_BS = rng.integers(END + 1, len(symbols["symbols"]), (3, 7), np.int32)
  reading = language.next_symbols(decoder, run.params, ids_BS, 2)
  carry, step = decoder.start(3), jax.jit(decoder.step)
  for t in range(6):
    carry, logits_BV = step(run.params, carry, ids_BS[:, t])
    logs_BV = np.asarray(jax.nn.log_softmax(logits_BV))
    nll_B = -logs_BV[np.arange(3), ids_BS[:, t + 1]]
    np.testing.assert_allclose(reading.surprisal[:, t], nll_B, rtol=1e-4)
    assert (reading.ids[:, t, 0] == logs_BV.argmax(1)).all()
    best_B = reading.probabilities[:, t, 0]
    np.testing.assert_allclose(best_B, np.exp(logs_BV.max(1)), rtol=1e-4)


# In a browser.


@pytest.mark.usefixtures("rendered")
def test_a_browser_shows_it_without_a_fault(runs, browser):
  path = report.run(experiments.build, *runs("language model"))
  browser.set_window_size(500, 2000)
  browser.get(path.as_uri())
  assert re.search(r"base64,[\w+/]{999}", path.read_text("utf-8"))  # Pictures.
  # An error of the script, or a request, which the page forbids itself.
  assert browser.get_log("browser") == []
  # The script has chosen a symbol and shows the predictions in its place.
  text = browser.find_element("css selector", ".predicted").text
  assert re.search(r"had probability [\d.]+ %: [\d.]+ bits", text)


def test_long_texts_leave_the_other_columns_on_the_page(
  browser, tmp_path, monkeypatch
):
  rows = [mistaken("truth", 1.0, "prediction", [LONG])]
  parts = listed(monkeypatch, rows, by_text=True)
  page.write_page(tmp_path / "page.html", "mistakes", TOP, parts)
  faults = []
  for width in (1200, 500):
    browser.set_window_size(width, 900)
    browser.get((tmp_path / "page.html").as_uri())
    box = browser.find_element("css selector", ".scroll")
    wide = int(box.get_property("scrollWidth"))
    if wide > int(box.get_property("clientWidth")):
      faults.append(f"{width} pixels: the table has {wide}")
  assert not faults
