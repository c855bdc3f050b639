"""refresh: the next model of a detector, from the log after a deploy."""

import contextlib
import gzip
import io
import os
import random
import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from seqrnn.config import read as config_lib
from seqrnn.data import splits, vocabulary
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import of_pieces
from seqrnn.errors import MachineError, UserError
from seqrnn.logs.detect import deployed
from seqrnn.logs.follow.alarms import Alarms
from seqrnn.logs.refresh import kept, selection
from seqrnn.modes import detect, refresh
from seqrnn.runtime import files, generations
from seqrnn.training import train
from tests.conftest import read_csv, tiny
from tests.logs.follow.test_feedback import save, verdict
from tests.modes.conftest import FIELDS, build

BEGIN = datetime(2026, 3, 2, 8)
NEW = "part checked twice"
# In many sessions of half an hour; and of one session each.
BURST, ERRORS = "login refused", ("disk is full", "lease has expired")
WITH_BURST, WITH_ERROR = range(330, 366), (400, 440)


def lines_of(number, is_new):
  """The lines of a session of 4 to 8 events, a minute after the one before."""
  rng = random.Random(number)
  texts = ["order received", *["part added"] * rng.randint(1, 4)]
  texts += (
    [NEW] * is_new + ["order paid"] * (rng.random() < 0.8) + ["order done"]
  )
  if number in WITH_BURST:
    texts.insert(1, BURST)
  if number in WITH_ERROR:
    texts.insert(2, ERRORS[WITH_ERROR.index(number)])
  begin = BEGIN + timedelta(minutes=number)
  return [
    f"{begin + timedelta(seconds=5 * n)} id-{number} {text}\n"
    for n, text in enumerate(texts)
  ]


def write(path, first, last, deploy=300):
  with path.open("a") as file:
    for number in range(first, last):
      file.writelines(lines_of(number, number >= deploy))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
  """A run on the log before the deploy, detected; and its config."""
  folder = tmp_path_factory.mktemp("refresh")
  write(folder / "app.log", 0, 300)
  fields = {**FIELDS, "data.unit": "log", "train.epochs": 1}
  fields |= {"data.log_header": "<Date> <Time> <Content>"}
  fields |= {"data.log_session": r"(id-\d+)", "data.validation_fraction": 0.1}
  fields |= {"data.path": str(folder / "app.log")}
  config = tiny(folder, fields)
  with contextlib.redirect_stdout(io.StringIO()):
    train.fit(build, config, folder / "run")
    config = config_lib.read_run(folder / "run")
    config.detect.path = config.data.path
    detect.run(build, config, folder / "run")
  return folder, config


@pytest.fixture
def run(first, tmp_path):
  """A copy of the run, its config and its log, which may grow."""
  shutil.copytree(first[0] / "run", tmp_path / "run")
  shutil.copy(first[0] / "app.log", tmp_path / "app.log")
  config = first[1].copy_and_resolve_references()
  config.detect.input = str(tmp_path / "app.log")
  return tmp_path / "run", config, tmp_path / "app.log"


def refused(config, workdir):
  """A refresh that leaves the model before in place."""
  assert refresh.run(build, config, workdir) == workdir
  assert generations.current(workdir) == workdir
  assert [*(workdir / "refresh").glob("*")] == []


def test_kept_sessions_are_those_of_the_log(first):
  folder, config = first
  known = build(config, vocabulary.load(folder / "run" / "vocabulary.json"))
  read = kept.open_splits(config, folder / "run", known).read
  for split in ("train", "validation"):
    expected, sessions = (
      of_pieces(pieces, known.vocabularies["symbols"])
      for pieces in (splits.reader(config)(split), read(split))
    )
    assert sessions.names == expected.names
    for name in ("timestamps", "ids", "lines", "seconds", "bounds"):
      both = zip(getattr(sessions, name), getattr(expected, name), strict=True)
      assert all(a == b for a, b in both), name
    # Without the times of other sessions.
    times = sessions.timestamps
    assert {*times.symbols} == {*times} and len(times.symbols) > 1


def test_the_next_model_learns_the_new_version_alone(run, capsys):
  workdir, config, log = run
  refused(config, workdir)
  assert "the log has no lasting change; " in capsys.readouterr().out
  # As soon as the change is known, it says when there are enough sessions.
  write(log, 300, 353)
  config.detect.rate = 0.01  # Another one than that of the last detection.
  refused(config, workdir)
  assert (
    "detect.rate=0.01 needs 99 normal sessions to flag one, and has 24"
    in (out := capsys.readouterr().out)
  )
  config.detect.rate = 0.02
  assert re.search(r"; at the pace of this log .* at 2026-03-02 1[4-6]:", out)
  write(log, 353, 520)
  # A person accepts one of the errors.
  alerts = Alarms(0.0, Redaction("(?!)"))
  alerts.take(verdict("id-440", [f"<session> {ERRORS[1]}"], score="new"))
  save(workdir, alerts)
  (workdir / "review.csv").write_text("kind,session,answer\n1,id-440,normal\n")
  # The log is rotated, and a last line is not complete.
  with log.open("a") as file:
    file.write("no header\n")
  log.rename(log.with_name("app.log.1"))
  write(log, 520, 560)
  with log.open("a") as file:
    file.write(str(BEGIN))
  folder = refresh.run(build, config, workdir)
  out, err = capsys.readouterr()
  assert folder == workdir / "refresh" / "1" == generations.current(workdir)
  # Reports and tables name the log and its lines, not those of a copy.
  parts = (log.with_name("app.log.1"), log)
  whole = "".join(path.read_text() for path in parts).splitlines()
  number = whole.index("no header") + 1
  said = rf"app\.log\.gz: 1 of .*; the first is line {number}: 'no header'"
  assert re.fullmatch(rf"({said}\n){{3,}}", err), err  # No warning.
  rows = read_csv(folder / "detect" / "sessions.csv")
  assert all(row["session"] in whole[int(row["line"]) - 1] for row in rows)
  assert config_lib.read_run(folder).detect.input is None
  symbols = vocabulary.load(folder / "vocabulary.json")["symbols"].symbols
  assert any(NEW in symbol for symbol in symbols)
  assert not any(text in s for text in (BURST, ERRORS[0]) for s in symbols)
  assert any(ERRORS[1] in symbol for symbol in symbols)
  assert "1,id-440," in (folder / "review.csv").read_text()
  line = rf"^since 2026-03-02 13:.*{NEW}.* that do not last: <session> {BURST}$"
  assert re.search(line, out, re.M)
  assert [*folder.rglob("*.gz")] == []
  # It needs no log, and flags what it has not learned.
  new = config_lib.read_run(folder)
  new.detect.path = str(log.with_name("app.log.1"))
  (workdir / "review.csv").touch()  # It is edited where it no longer counts.
  findings = detect.run(build, new, folder)
  assert "is not read since a refresh; write" in capsys.readouterr().err
  flags = findings.decision.flags[findings.distinct.which]
  by_name = dict(zip(findings.sessions.names, flags, strict=True))
  assert by_name[f"id-{WITH_ERROR[0]}"] and by_name[f"id-{WITH_BURST[3]}"]
  usual = [by_name[f"id-{number}"] for number in range(450, 520)]
  assert sum(usual) < 10
  model = deployed.restore(build, new, folder)
  assert model.span[0] >= BEGIN.replace(tzinfo=UTC).timestamp() + 300 * 60
  # Nothing has changed since; and it can go back, once.
  assert refresh.run(build, config, folder) == folder
  config.detect.refresh = 0.0
  assert refresh.run(build, config, folder) == workdir
  assert "is in place\n" in capsys.readouterr().out
  assert generations.current(workdir) == workdir
  with pytest.raises(UserError, match="has no model before"):
    refresh.run(build, config, workdir)


def test_a_refresh_that_fails_leaves_the_model_before(run, monkeypatch):
  workdir, config, log = run
  being = pytest.raises(MachineError, match="is being refreshed by process")
  with files.locked(workdir / ".refresh.lock", "refreshed"), being:
    refresh.run(build, config, workdir)
  config.detect.input = str(log.with_name("gone.log"))
  with pytest.raises(UserError, match="gone.log: no such file"):
    refused(config, workdir)
  # Neither a pipe is read, nor is a copy named.
  os.mkfifo(log.with_name("pipe.log"))
  log.with_name("bytes.log").write_bytes(b"x\xff\n")
  for name, why in ("pipe", "not a regular file$"), ("bytes", "byte 1 is not"):
    config.detect.input = str(log.with_name(f"{name}.log"))
    with pytest.raises(UserError, match=f"^{config.detect.input}: {why}"):
      refused(config, workdir)
  packed = gzip.compress(log.read_bytes() * 9)[:-900]  # Packed meanwhile.
  log.with_name("app.log.1.gz").write_bytes(packed)
  config.detect.input = str(log)
  with pytest.raises(
    UserError, match=f"^{log}: Compressed file ended .* again"
  ):
    refused(config, workdir)
  log.with_name("app.log.1.gz").unlink()
  # A clock that leaps, in one line, moves neither the begin nor the end.
  log.write_text(
    "9999-01-01 00:00:00 id-9999 order received\n" + log.read_text()
  )
  config.detect.refresh = 0.02
  monkeypatch.setattr(refresh, "train", None)  # It is not reached.
  refused(config, workdir)

  def fail(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(selection, "_packed", fail)
  where = f"^{workdir}/refresh/1/log/app.log.gz: cannot be written: No space"
  with pytest.raises(UserError, match=where):
    refused(config, workdir)


def test_a_model_that_would_flag_too_much_is_refused(run, monkeypatch, capsys):
  workdir, config, _ = run
  config.detect.refresh = 9.0
  monkeypatch.setattr(refresh.train, "fit", lambda *_: None)
  monkeypatch.setattr(refresh, "read_run", lambda _: config)
  model, found = deployed.restore(build, config, workdir), []

  def detected(_, own, *__):
    sessions = refresh.read_sessions(own, model.detector.names, own.detect.path)
    found.append(
      selection.find_anomalies(model.detector, model.normal, sessions)
    )
    decision = found[0].decision
    every = decision.flags | True
    return found[0]._replace(decision=decision._replace(flags=every))

  monkeypatch.setattr(refresh.detect, "run", detected)
  refused(config, workdir)
  out = capsys.readouterr().out
  assert re.search(r"would flag 300 of the 300 sessions of the last day", out)
  assert "flagged by the new model alone: " in out


def test_a_log_of_new_events_alone_takes_no_parameters(run, monkeypatch):
  workdir, config, log = run
  config.detect.refresh, starts = 9.0, []

  def fit(_, own, __):
    starts.append(own.train.start_from)
    raise UserError("stops here")

  monkeypatch.setattr(refresh.train, "fit", fit)
  lines = [line for n in range(300, 400) for line in lines_of(n, False)]
  for part, order in (("part", "order"), ("piece", "invoice")):
    log.write_text("".join(lines).replace("part", part).replace("order", order))
    with pytest.raises(UserError, match="stops here"):
      refresh.run(build, config, workdir)
  assert starts == [str(workdir), None]


def test_what_lasts_is_all_over_the_log_and_at_its_end():
  cases = {
    "all over": (range(0, 500, 10), True),
    "few": (range(0, 500, 20), False),
    "a burst": (range(200, 260), False),
    "a burst at the end": (range(450, 500), False),
    "not at the end": (range(0, 390, 5), False),
    "one session": ([7] * 90, False),
  }
  for name, (which, expected) in cases.items():
    which = refresh.np.array(which)
    assert selection.lasts(which, 500) == expected, name
