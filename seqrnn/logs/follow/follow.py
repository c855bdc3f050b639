"""detect --follow: judges the sessions of a log as its lines arrive.

Lines become events, the follower judges them, one transaction stores all that
has changed, and alarms are written: first to alarms.jsonl, then on stdout. Each
step takes what has arrived at once. After a restart lines are read from the
position of the last transaction on.
"""

import gc
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.secrets import redaction
from seqrnn.data.logs.tail import Chunk, FileTail, Position, StreamTail
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import deployed
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.follow import alarms, feedback, health
from seqrnn.logs.follow.alarms import FALSE, Alarms
from seqrnn.logs.follow.drift import Drift
from seqrnn.logs.follow.follower import Event, Follower
from seqrnn.logs.follow.lines import Parser, report
from seqrnn.logs.follow.state import NAME, State, damage
from seqrnn.logs.follow.verdicts import Verdict
from seqrnn.runtime import signals

_WAIT = 0.2  # Seconds without input, after which the rest is looked after.
_LOOK = 1.0  # Seconds between two looks for answers and a new detection.


class Model:
  """What a detection has decided, and what follows with it.

  Attributes:
    deployed: the detection.
    follower: its sessions.
    drift: whether new sessions are like those of the calibration.
    masks: of what is shown; None: nothing is masked.
  """

  def __init__(self, made: Deployed):
    """Compiles the models.

    Raises:
      UserError: as `Follower`.
    """
    self.deployed, self.follower = made, Follower(made)
    groups = [(g.scores, -np.diff(g.above)) for g in made.normal.as_new.groups]
    self.drift = Drift(groups, 0)
    self.masks = redaction(made.config.detect.redact)

  def masked(self, row: dict[str, Any]) -> dict[str, Any]:
    """A row to show, in which secrets are masked."""
    if self.masks is None:
      return row
    row = {**row, "session": self.masks.name(row["session"])}
    for name in ("event", "before", "after"):
      texts = row.get(name)
      if isinstance(texts, str):
        row[name] = self.masks.text(texts)
      elif texts:
        row[name] = [self.masks.text(text) for text in texts]
    return row


class Service:
  """Follows an input, with a state that outlives the process."""

  def __init__(
    self,
    restore: Callable[[], Deployed],
    workdir: Path,
    state: State,
    write: Callable[[str], Any],
  ):
    """Restores the detection, and nothing of the state.

    Args:
      restore: reads the detection as it is now.
      workdir: of the run.
      state: of earlier processes.
      write: writes lines of JSON.

    Raises:
      UserError: as `deployed.restore` and `Follower`.
    """
    self._restore, self._workdir = restore, workdir
    self._state, self._write = state, write
    self._record = workdir / "detect" / "thresholds.json"
    self._version, self._looked = self._stamp(), time.monotonic()
    self._model = Model(restore())
    self.config = self._model.deployed.config
    settings = self.config.detect
    self._input = settings.input or "standard input"
    self._parser = Parser(self.config.data, self._input)
    self._alarms = Alarms(60 * settings.quiet)
    self._ended = 0  # Sessions that got their final verdict.
    self._position = Position()
    self._inbox = feedback.Inbox(workdir, self.config.data.errors)
    self.health = health.Health()
    self._note_model()
    gc.freeze()  # What is here now stays.

  def warm(self):
    """Compiles what most events need, before the first one arrives."""
    self._model.follower.warm()

  def recover(self):
    """Resumes where the process before was stopped.

    Raises:
      UserError: the state is of another input, or is damaged.
    """
    facts, lines = self._state.recover()
    with damage(self._state.folder / NAME):
      if facts:
        self._restore_facts(facts)
      alarms = [json.loads(line) for line in lines]
    if self._position != Position():
      report(
        f"{self._state.folder}: goes on after line {self._position.line:,} of"
        f" {self._input}, with the open sessions and the alarms of earlier"
        " input; to start afresh, remove this folder or name another one by"
        " detect.output"
      )
    self._show(alarms)
    self._note_model()

  def _note_model(self):
    deployed, change = self._model.deployed, self._model.drift.change
    info = {
      "steps": ",".join(map(str, deployed.detector.steps)),
      "rate": f"{self.config.detect.rate:g}",
      "calibration": str(deployed.normal.events.n),
    }
    self.health.model.info(info)
    self.health.drift = change.text(str(self._workdir)) if change else ""

  def _restore_facts(self, facts: dict[str, Any]):
    if facts["input"] != self._input:
      raise UserError(
        f"config.detect.input={self._input!r}: the state is of"
        f" {facts['input']!r}; set config.detect.output to another folder, or"
        " remove the state"
      )
    rows, model = self._state.rows, self._model
    self._position = Position(*facts["position"])
    self._parser.restore(facts["parser"])
    self._alarms.restore(facts["alarms"], rows("kinds"))
    model.follower.restore(facts["follower"], rows("sessions"))
    model.drift.restore(facts["drift"], rows("drift"))
    self._ended = facts["ended"]

  def save(self, alarms: Sequence[dict[str, Any]] = (), at_once: bool = False):
    """Stores what has changed, and alarms; arguments as of `State.save`."""
    parts = self._alarms, self._model.follower, self._model.drift
    facts = {
      "input": self._input,
      "position": self._position,
      "parser": self._parser.state(),
      "alarms": self._alarms.facts(),
      "follower": self._model.follower.facts(),
      "drift": self._model.drift.facts(),
      "ended": self._ended,
    }
    changes = (change for part in parts for change in part.changes())
    lines = [json.dumps(row) for row in alarms]
    if self._state.save(changes, facts, lines, at_once):
      for part in parts:
        part.saved()

  def source(self) -> FileTail | StreamTail:
    """The input, from the position of the state on.

    Raises:
      UserError: there is no standard input.
    """
    if path := self.config.detect.input:
      return FileTail(Path(path), report, self._position)
    if sys.stdin is None:
      raise UserError(
        "--follow: there is no standard input; config.detect.input names a file"
      )
    return StreamTail(sys.stdin.fileno(), self._position)

  def follow(
    self,
    source: FileTail | StreamTail,
    stopped: Callable[[], bool],
    reload: Callable[[], bool],
  ):
    """Follows the input until it ends.

    Args:
      source: as `source` gives it.
      stopped: whether a signal asks for the end.
      reload: whether a signal asks for the new detection, once.

    Raises:
      UserError: the input has ended and had no event.
    """
    while not (source.ended or stopped()):
      self._look_after(source.behind)
      is_time = time.monotonic() - self._looked >= _LOOK
      if is_time:
        self._looked = time.monotonic()
        self._read_answers()
      if reload() or (is_time and self._is_new()):
        self.reload()
      if chunk := source.read(_WAIT):
        self._look_after(source.behind + sum(map(len, chunk.lines)))
        self._take(chunk)
      elif self._state.fault:
        self.save()
    self.save(at_once=True)
    if source.ended:
      self._parser.finish()

  def _take(self, chunk: Chunk):
    """Judges the events of lines that have arrived."""
    begin, skipped = time.perf_counter(), self._parser.skipped.count
    events = self._parser.events(chunk)
    self._skip_ends(events)
    self._position = chunk.position
    if events:
      rows, found = self._judge(events)
      self.save(found)
      self._show(rows + found)
    self.health.take(
      lines=len(chunk.lines),
      events=sum(event.symbol is not None for event in events),
      skipped_lines=self._parser.skipped.count - skipped,
    )
    if events:
      self.health.seconds.observe(time.perf_counter() - begin)

  def _skip_ends(self, events: list[Event]):
    """Reports ends of sessions that are not open."""
    is_open: dict[str, bool] = {}
    for session, symbol, _, line in events:
      ends = symbol is None and session != ""
      if ends and not is_open.get(session, session in self._model.follower):
        fault = f"ends session {session!r}, which is not open"
        self._parser.skipped.add(line or 0, fault)
      is_open[session] = not ends

  def _judge(
    self, events: list[Event]
  ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows to write on stdout, and alarms."""
    wanted, model = self.config.detect.follow, self._model
    outcome = model.follower.feed_many(events, rows=wanted == "events")
    self.health.take(unknown_events=outcome.unknown)
    rows = [{"type": "event", **row} for row in outcome.rows]
    found = []
    for verdict in outcome.verdicts:
      if verdict.ended:
        self._note_end(verdict)
        if wanted == "sessions":
          rows.append(alarms.session_row(verdict))
      if row := self._alarms.take(verdict):
        self.health.alarm(row)
        found.append(model.masked(row))
    return [*map(model.masked, rows)], found

  def _note_end(self, verdict: Verdict):
    """Takes a final verdict for the figures, and for the drift."""
    if not math.isnan(verdict.p):
      self.health.p_values.observe(verdict.p)
    self._ended += 1
    if not (verdict.scores_K and verdict.begins):
      return
    change = self._model.drift.take(
      np.array(verdict.scores_K), self._ended, verdict.time
    )
    if change:
      text = change.text(str(self._workdir))
      report(text)
      self.health.drift = text

  def _show(self, rows: list[dict[str, Any]]):
    if rows:
      self._write("".join(f"{json.dumps(row)}\n" for row in rows))

  def _look_after(self, behind: int):
    """Tells the figures where the follower is."""
    now, follower = self._model.follower.now, self._model.follower
    lag = math.nan if now is None else time.time() - now
    self.health.fault = self._state.fault
    if line := self.health.look(
      lag_seconds=lag,
      input_lag_bytes=behind,
      open_sessions=follower.open_sessions,
    ):
      report(line)

  def _read_answers(self):
    """Takes answers to alarms, if there are new ones; no alarm is between."""
    try:
      told = self._inbox.poll()
    except (UserError, OSError) as error:
      report(f"the answers before are kept: {error}")
      return
    if told is None:
      return
    masks = self._model.masks
    for kind in feedback.apply(self._alarms, told, masks):
      report(feedback.said(kind, masks))
    quiet = [kind.answer == FALSE for kind in self._alarms.kinds.values()]
    self.health.figures["quiet_kinds"] = sum(quiet)
    self.save()

  def _stamp(self) -> tuple[int, int] | None:
    """What tells a new detection from the one before."""
    try:
      status = self._record.stat()
    except OSError:  # It is being replaced.
      return None
    return status.st_ino, status.st_mtime_ns

  def _is_new(self) -> bool:
    """Whether there is a detection that was not looked at."""
    return self._stamp() not in (None, self._version)

  def reload(self):
    """Takes up a new detection; an invalid one is reported."""
    self._version = self._stamp()
    try:
      model = Model(self._restore())
      model.follower.warm()
    except Exception as error:  # As files that are damaged may raise any.
      report(f"the detection before is kept: {error}")
      return
    before = self._model
    model.follower.take_over(before.follower)
    if model.drift.key == before.drift.key:
      model.drift = before.drift
    self._model = model
    self._note_model()
    self.save()
    steps = ", ".join(map(str, model.deployed.detector.steps))
    report(f"a new detection is taken up: models of steps {steps}")


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Judges the sessions of the input until it ends, or SIGTERM or SIGINT comes.

  Raises:
    UserError: the model does not predict the next event, there is no detection,
      or the state cannot be used.
  """
  if config.data.log_format == "auto":
    raise UserError(
      "--follow: data.log_format='auto': the files of the training have"
      " different formats; --config.data.log_format names that of the input"
    )

  def write(text: str):
    sys.stdout.write(text)
    sys.stdout.flush()

  def restore() -> Deployed:
    return deployed.restore(build, config, workdir)

  with ExitStack() as stack:
    received = stack.enter_context(signals.catch_signals())
    hangup = stack.enter_context(signals.catch_hangups())
    folder = feedback.state_folder(config, workdir)
    state = stack.enter_context(State(folder, report))
    service = Service(restore, workdir, state, write)
    if server := health.serve(service.health, service.config):
      stack.callback(server.server_close)
      stack.callback(server.shutdown)
    service.warm()
    service.recover()
    source = service.source()
    stack.callback(source.close)
    service.follow(source, lambda: bool(received), hangup)
