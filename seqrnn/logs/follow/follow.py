"""detect --follow: judges the sessions of a log as its lines arrive.

Lines become events, the follower judges them, one transaction stores all that
has changed, and alarms are written: first to alarms.jsonl, then on stdout. Each
step takes the lines that have arrived together. After a restart lines are read
from the position of the last transaction on.

A line becomes an alarm on this way:

1. tail.py of data/logs/ reads the lines that have arrived (`Service.follow`).
2. lines.py makes events of them, by entries.py, formats.py and templates.py of
   data/logs/ as a detection does.
3. follower.py adds each event to its session (open_sessions.py).
4. stepping.py computes the scores of the event: `event_scorer` of
   detect/detector.py, with the step of the models' decoder as its head.
5. verdicts.py judges the session by detect/findings.py: while it is open, by
   `decide` with the lowest scores that it can have; when it has ended, by
   `find_anomalies`, as a detection does.
6. alarms.py finds the kind of the alarm, and makes its row.
7. state.py stores all changes, and writes the row; `Service` prints it.
"""

import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data.logs.entries import LineContext
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.tail import Chunk, FileTail, LogPosition, StreamTail
from seqrnn.errors import UserError, report
from seqrnn.experiment import Experiment
from seqrnn.logs import drift
from seqrnn.logs.detect import answers, deployed
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.findings import SEVERITIES
from seqrnn.logs.detect.scores import COMBINED
from seqrnn.logs.follow import feedback, health
from seqrnn.logs.follow.alarms import AlarmRow, Alarms
from seqrnn.logs.follow.follower import Follower
from seqrnn.logs.follow.lines import Parser
from seqrnn.logs.follow.novel import NEW
from seqrnn.logs.follow.state import (
  NAME,
  StateRow,
  StoredState,
  damage,
  open_state,
)
from seqrnn.logs.follow.verdicts import Verdict, isoformat
from seqrnn.runtime import generations, signals

_WAIT = 0.2  # Seconds without input, after which answers and figures are read.
_LOOK = 1.0  # Seconds between two looks for answers.


class Silence(TypedDict):
  """The alarm that a log is silent, as an object of JSON."""

  type: str
  number: int
  ended: bool
  severity: str
  since: str
  line: int
  until: NotRequired[str]


class ServiceFacts(TypedDict):
  """All that is stored of a service beside sessions and kinds of alarms."""

  input: str
  position: LogPosition
  parser: LineContext
  alarms: dict[str, int]
  follower: dict
  silence: Silence | None


class Service:
  """Follows an input, with a state that outlives the process.

  Attributes:
    config: of the run, with the settings of the detection.
    health: the figures.
    position: in the input, after the lines that were read.
    follower: the sessions.
    alarms: the kinds of alarms.
  """

  def __init__(
    self,
    model: Deployed,
    workdir: Path,
    state: StoredState,
    write: Callable[[str], None],
    figures: health.Health | None = None,
  ):
    """Restores nothing of the state.

    Args:
      model: the detection.
      workdir: of the run.
      state: of earlier processes.
      write: writes lines of JSON.
      figures: of the process; None: new ones.

    Raises:
      UserError: as `Follower`.
    """
    self._workdir, self._state, self._write = workdir, state, write
    self._answered = ()  # Size and time of the answers that were read.
    self._looked = self._heard = time.monotonic()
    self._silence: Silence | None = None
    self.health, self.config = figures or health.Health(), model.config
    self.follower = Follower(model)
    training = drift.Training(model.detector, model.shares_E)
    self._drift = drift.of_calibration(model.normal, training)
    self._stored, settings = -1, self.config.detect
    info = {
      "steps": ",".join(map(str, model.detector.steps)),
      "rate": f"{settings.rate:g}",
      "calibration": str(model.normal.events.n),
    }
    self.health.model.info(info)
    least = model.normal.scores[COMBINED].resolution
    self.health.figures |= {"rate": settings.rate, "least_p_value": least}
    self._input = settings.input or "standard input"
    self._parser = Parser(self.config.data, self._input)
    self.alarms = Alarms(60 * settings.quiet, Redaction(settings.redact))
    self.position = LogPosition()
    gc.freeze()  # The models are never garbage.

  def recover(self):
    """Resumes where the process before was stopped.

    Raises:
      UserError: the state is of another input, or is damaged.
    """
    lines = self._state.recover()
    facts = self._state.value("facts", ServiceFacts)
    if facts and facts["input"] != self._input:
      raise UserError(
        f"config.detect.input={self._input!r}: the state is of"
        f" {facts['input']!r}; set config.detect.output to another folder, or"
        " remove the state"
      )
    with damage(self._state.folder / NAME):
      if facts:
        self.position = facts["position"]
        self._parser.restore(facts["parser"])
        self.alarms.restore(facts["alarms"], self._state.rows("kinds"))
        self.follower.restore(facts["follower"], self._state.rows("sessions"))
        self._silence = facts["silence"]
        self._note_answers()
      if bets := self._state.value("drift", dict):
        self._drift.restore(bets)
      alarms = [json.loads(line) for line in lines]
    if facts:
      report(
        f"{self._state.folder}: resumes after line {self.position.line:,} of"
        f" {self._input}; remove this folder to start afresh"
      )
    self._show(alarms)

  def save(self, alarms: Sequence[AlarmRow | Silence] = ()):
    """Stores all changes and alarms."""
    facts = {
      "input": self._input,
      "position": self.position,
      "parser": {**vars(self._parser.context)},
      "alarms": self.alarms.facts(),
      "follower": self.follower.facts(),
      "silence": self._silence,
    }
    changes = [*self.alarms.changes(), *self.follower.changes()]
    changes.append(StateRow("meta", "facts", 0, facts))
    if self._drift.sessions != self._stored:
      changes.append(StateRow("meta", "drift", 0, self._drift.facts()))
    self._stored = self._drift.sessions
    self._state.save(changes, list(map(json.dumps, alarms)))

  def source(self) -> FileTail | StreamTail:
    """The input, from the position of the state on.

    Raises:
      UserError: there is no standard input.
    """
    if path := self.config.detect.input:
      return FileTail(Path(path), report, self.position)
    if sys.stdin is None:
      raise UserError(
        "--follow: there is no standard input; config.detect.input names a file"
      )
    return StreamTail(sys.stdin.fileno(), self.position)

  def follow(self, source: FileTail | StreamTail, stopped: Callable[[], bool]):
    """Follows the input until it ends.

    Args:
      source: as `source` gives it.
      stopped: whether a signal asks for the end.

    Raises:
      UserError: the input has ended and had no event.
    """
    while not (source.ended or stopped()):
      self._look(source.behind)
      if time.monotonic() - self._looked >= _LOOK:
        self._looked = time.monotonic()
        self._read_answers()
      if chunk := source.read(_WAIT):
        self._look(source.behind + sum(map(len, chunk.lines)))
        self._take(chunk)
      elif not source.ended and self._is_silent():
        self._fall_silent()
      elif self._state.fault:
        self.save()
    self.save()
    if source.ended:
      self._parser.finish()

  def _take(self, chunk: Chunk):
    """Judges the events of lines, and stores and writes rows and alarms."""
    begin, skipped = time.perf_counter(), self._parser.skipped
    ended = self._end_silence()
    events = self._parser.events(chunk)
    self.position = chunk.position
    outcome = self.follower.feed_many(events)
    for event in outcome.not_open:
      fault = f"ends session {event.session!r}, which is not open"
      self._parser.skip(event.line or 0, fault)
    rows, alarms = self._rows(outcome.verdicts)
    alarms = [*ended, *alarms]
    if events or ended:
      self.save(alarms)
      self.health.seconds.observe(time.perf_counter() - begin)
    self._show([*rows, *alarms])
    self.health.take(
      lines=len(chunk.lines),
      events=sum(event.symbol is not None for event in events),
      unknown_events=outcome.unknown,
      skipped_lines=self._parser.skipped - skipped,
    )

  def _rows(
    self, verdicts: Iterable[Verdict]
  ) -> tuple[list[AlarmRow], list[AlarmRow | Silence]]:
    """The rows of sessions, and those of alarms."""
    rows, alarms = [], []
    for verdict in verdicts:
      if row := self.alarms.take(verdict):
        self.health.alarms.labels(SEVERITIES[verdict.severity]).inc()
        alarms.append(row)
      if verdict.score == NEW:
        report(
          f"{verdict.event}: {verdict.reason}; sessions are judged without it"
          " from now on. It is not accepted: write normal for kind"
          f" {self.alarms.numbers} in {self._workdir / answers.NAME}, which"
          " --mode=review writes, or anomalous, and it is an alarm in each"
          " session"
        )
      if verdict.ended:
        self._note_end(verdict)
        if self.config.detect.follow == "sessions":
          rows.append(self.alarms.session_row(verdict))
    return rows, alarms

  def _is_silent(self) -> bool:
    """Whether the log has just fallen silent, after a line that was read."""
    waited = time.monotonic() - self._heard
    is_new = self._silence is None and self.position.line > 0
    return is_new and waited > self.follower.deployed.silence

  def _fall_silent(self):
    """Raises an alarm, and ends all sessions."""
    begin = time.time() + self._heard - time.monotonic()
    rows, alarms = self._rows(self.follower.end_all())
    self.alarms.count += 1
    self._silence = {
      "type": "silence",
      "number": self.alarms.count,
      "ended": False,
      "severity": SEVERITIES[-1],
      "since": isoformat(int(begin)) + "Z",
      "line": self.position.line,
    }
    report(f"the log has been silent since {self._silence['since']}")
    self.health.alarms.labels(self._silence["severity"]).inc()
    alarms.append(self._silence)
    self.save(alarms)
    self._show([*rows, *alarms])

  def _end_silence(self) -> list[Silence]:
    """The row of a silence that a line has ended, if the log was silent."""
    self._heard, row = time.monotonic(), self._silence
    if row is None:
      return []
    self._silence = None
    until = isoformat(int(time.time())) + "Z"
    report(f"the log was silent from {row['since']} until {until}")
    return [{**row, "ended": True, "until": until}]

  def _note_end(self, verdict: Verdict):
    """Takes a final verdict for the figures, and for the drift."""
    if math.isnan(verdict.p):  # It is flagged for its length alone.
      return
    self.health.p_values.observe(verdict.p)
    if verdict.begins and verdict.scores_K:
      scores_K1 = np.array(verdict.scores_K)[:, None]
      time = math.nan if verdict.time is None else verdict.time
      unknown = np.array([verdict.unknown_events + verdict.left_out > 0])
      sessions = scores_K1, unknown, np.array([time])
      for line in self._drift.take(*sessions, lambda _: verdict.symbols):
        report(line)

  def _show(self, rows: Iterable[AlarmRow | Silence]):
    if text := "".join(f"{json.dumps(row)}\n" for row in rows):
      self._write(text)

  def _look(self, behind: int):
    """Notes the figures of the moment, of which so many bytes wait."""
    now = self.follower.now
    self.health.look(
      reason=self._state.fault,
      drift=self._drift.warning,
      silence=(self._silence or {}).get("since", ""),
      lag_seconds=math.nan if now is None else time.time() - now,
      input_lag_bytes=behind,
      open_sessions=self.follower.open_sessions,
    )

  def _read_answers(self):
    """Takes answers to alarms, if there are new ones."""
    before = self._answered
    with suppress(FileNotFoundError):
      status = (self._workdir / answers.NAME).stat()
      self._answered = status.st_size, status.st_mtime_ns
    if self._answered == before:
      return
    try:
      rows = answers.load_rows(self._workdir, self.config.data.errors)
    except (UserError, OSError) as error:
      report(f"the answers before stay: {error}")
      return
    for kind in self.alarms.answer(answers.alarm_answers(rows)):
      report(
        f"alarms of kind {kind.number} ({kind.example['event']}) are normal by"
        f" {answers.NAME}: {kind.count:,} so far, and none is written from now"
        " on"
      )
    self._note_answers()
    self.save()

  def _note_answers(self):
    """Has answers followed, those to new events, too."""
    kinds = self.alarms.kinds.values()
    answers = {kind.key: kind.answer for kind in kinds}
    quiet = [*answers.values()].count("normal")
    self.health.figures["quiet_kinds"] = quiet
    anomalous = feedback.new_events(kinds, answers, "anomalous")
    self.follower.leave_out(frozenset(anomalous))


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Judges the sessions of the input until it ends, or SIGTERM or SIGINT comes.

  The next model of the run is taken up when a refresh has put it in place. It
  judges the open sessions from their first events on.

  Raises:
    UserError: the model does not predict the next event, there is no detection,
      or the state cannot be used.
  """
  if config.data.log_format == "auto":
    raise UserError(
      "--follow: data.log_format='auto': the files of the training have"
      " different formats; --config.data.log_format names that of the input"
    )

  with ExitStack() as stack:
    folder = feedback.state_folder(config, workdir)
    state = stack.enter_context(open_state(folder, report))
    received = stack.enter_context(signals.catch_signals())
    run_folder, figures = generations.workdir_of(workdir), health.Health()
    write, source = partial(print, end="", flush=True), None
    is_current = lambda: generations.current(run_folder) == workdir
    while True:
      model = deployed.restore(build, config, workdir)  # It may have to wait.
      service = Service(model, workdir, state, write, figures)
      if source is None and (port := service.config.detect.port):
        stack.enter_context(health.serve(figures, port))
      service.follower.warm()
      service.recover()
      if source is None:
        source = service.source()
        stack.callback(source.close)
      # What cannot be written yet, the next service could not read.
      stopped = lambda: bool(received) or not (state.fault or is_current())
      while not (source.ended or stopped()):
        service.follow(source, stopped)
      if source.ended or received:
        return
      # Between two transactions: all that was read is stored.
      workdir = generations.current(run_folder)
      config = derived.for_detection(config_lib.read_run(workdir), config)
      report(f"{workdir}: this model decides from here on")
      del model, service
      gc.unfreeze()
