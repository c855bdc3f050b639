"""detect --follow: scores each event of standard input as it arrives.

The model's state after the last event of each open session is stored, so that
the model reads each event once. The end of a session is also scored. The scores
equal those that the forward head gives whole sessions.
"""

import bisect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.data import corpora, logs, vocabulary
from seqrnn.data.reading import NOT_UTF8
from seqrnn.data.vocabulary import BEGIN, END, RESERVED, UNKNOWN
from seqrnn.detection import ensemble, thresholds
from seqrnn.detection.calibration import CALIBRATION, read_events
from seqrnn.detection.conformal import CrossCalibration, is_flagged
from seqrnn.detection.ensemble import Ensemble
from seqrnn.detection.findings import LOCK, NAME
from seqrnn.errors import UserError, visible
from seqrnn.experiment import Decoder, Experiment
from seqrnn.inference import scoring
from seqrnn.runtime import fileset, manifest, sharding

_LONGEST = 2**16  # Bytes of a line, at most.
_REPORTED = 10  # Skipped lines that are reported; all are counted.


class SkippedLines:
  """Warns on stderr about lines that are not events: the first, then a count.

  Attributes:
    count: number of skipped lines.
  """

  def __init__(self):
    self.count = 0

  def add(self, number: int, fault: str):
    """Counts a line, and reports the number and fault of an early line."""
    self.count += 1
    if self.count <= _REPORTED:
      self._print(f"line {number}: skipped, {fault}")
    if self.count == _REPORTED:
      self._print("further skipped lines are only counted")

  def finish(self):
    """Reports the count, unless each line was reported."""
    if self.count > _REPORTED:
      self._print(f"{self.count:,} lines were skipped")

  def _print(self, text: str):
    try:
      print(visible(text), file=sys.stderr, flush=True)
    except OSError:  # stderr is closed; events are still scored.
      with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())


def advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> tuple[np.ndarray, Callable[[Ensemble, np.ndarray], jax.Array]]:
  """The state at the begin of a session; a jitted models, state -> state.

  A state is one vector, because each argument and result of a compiled function
  costs as much time as a small layer. It holds the carries of K models, the
  last two events, the surprisal and rank of the last event by the mean
  prediction of the models, and its surprisal by each of them. The models have
  not read the last event yet. A float32 holds ids and ranks up to 2**24.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """
  one = decoder.start(1)
  carries = jax.tree.map(lambda x: jnp.stack([x] * count), one)
  parts = carries, jnp.zeros(2), jnp.zeros(2), jnp.zeros(count)
  start_S, unravel = ravel_pytree(parts)

  @partial(sharding.jit, mesh=mesh)
  def advance(models, state_S):
    carries, events_2, *_ = unravel(state_S)
    events = events_2.astype(jnp.int32)

    def step(params, seen_V, carry):
      before_1, event_1 = jnp.where(seen_V[events], events, UNKNOWN).reshape(
        2, 1
      )
      carry, logits_1V = decoder.step(params, carry, before_1)
      scores = scoring.target_scores(logits_1V, event_1)
      return carry, jax.nn.softmax(logits_1V), scores["nll"][0]

    members = models.params, models.seen, carries
    carries, chances_K1V, nll_K = jax.vmap(step)(*members)
    mean_1V = ensemble.mean_logits(chances_K1V.sum(axis=0), count)
    scores = scoring.target_scores(mean_1V, events[1:])
    scores_2 = jnp.concatenate(
      [scores["nll"], scores["rank"].astype(jnp.float32)]
    )
    shifted_2 = jnp.repeat(events_2[1:], 2)
    return ravel_pytree((carries, shifted_2, scores_2, nll_K))[0]

  begin_S = np.array(start_S)
  begin_S[-4 - count] = BEGIN
  return begin_S, advance


def stepper(
  decoder: Decoder, models: Ensemble
) -> tuple[np.ndarray, Callable[[np.ndarray, int], np.ndarray]]:
  """The state at the begin of a session, and a function state, event -> state.

  It computes on the CPU: to send one event to another device and to wait for
  its scores takes longer than the step.
  """
  mesh = sharding.one_cpu()
  models = jax.device_put(models, mesh.devices.item())
  count = len(models.seen)
  begin_S, advance = advancer(decoder, count, mesh)

  def step(state_S, event):
    state_S = state_S.copy()
    state_S[-3 - count] = event
    return np.asarray(advance(models, state_S))

  step(begin_S, UNKNOWN)  # Compiles before the first event arrives.
  return begin_S, step


def lines(
  stdin: IO[bytes], errors: str, skipped: SkippedLines
) -> Iterator[str]:
  """Lines as they arrive, without line ends; "" in place of a skipped line."""
  codec = ("latin-1",) if errors == "latin-1" else ("utf-8", errors)
  number = 0
  while line := stdin.readline(_LONGEST):
    number += 1
    text, fault = "", f"has more than {_LONGEST:,} bytes"
    if len(line) < _LONGEST or line.endswith(b"\n"):
      try:
        text, fault = line.rstrip(b"\r\n").decode(*codec), ""
      except UnicodeDecodeError:
        fault = NOT_UTF8
    while len(line) == _LONGEST and not line.endswith(b"\n"):
      line = stdin.readline(_LONGEST)
    if fault:
      skipped.add(number, fault)
    yield text


def parse(text: str) -> tuple[str, str | None, bool] | None:
  """The session and the event of a line, and whether it ends the session.

  A line is two words, two fields separated by a tab, or a JSON object with the
  field `session`, and `event` or a true `end`. Any other line gives None.
  """
  if not text.startswith("{"):
    pair = text.split("\t") if "\t" in text else text.split()
    return (pair[0], pair[1], False) if len(pair) == 2 and all(pair) else None
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError):
    return None
  session, event = fields.get("session"), fields.get("event")
  ends = fields.get("end", False)
  # bool is a subclass of int, but names neither a session nor an event.
  if not isinstance(ends, bool) or type(session) not in (str, int):
    return None
  if type(event) not in (str, int) and (event is not None or not ends):
    return None
  session, event = str(session), None if event is None else str(event)
  return (session, event, ends) if session and event != "" else None


def events(
  stdin: IO[bytes], data: Config, skipped: SkippedLines
) -> Iterator[tuple[str, str | None, int]]:
  """Session, symbol and line of each event; the symbol None ends a session.

  Lines are parsed as a log if data.unit is log, else by `parse`.

  Raises:
    UserError: the input has ended, and no line matched the format of the log.
  """
  texts = lines(stdin, data.errors, skipped)
  if data.unit == "log":
    form = logs.form(data)
    name, leave_out = "standard input", skipped.add
    for event in logs.events(texts, name, form, leave_out=leave_out):
      for session in event.sessions:
        yield session, event.symbol, event.line
    return
  for number, text in enumerate(texts, 1):
    if parsed := parse(text):
      session, event, ends = parsed
      if event is not None:
        yield session, event, number
      if ends:
        yield session, None, number
    elif text.strip():
      skipped.add(
        number,
        "must be a session and an event: two words, or two fields with a tab"
        ' between, or {"session": ..., "event": ...}, or {"session": ...,'
        ' "end": true}',
      )


class Follower:
  """Scores the events of several open sessions, each as it arrives."""

  def __init__(
    self,
    experiment: Experiment,
    models: Ensemble,
    limits: thresholds.Record,
    normal: CrossCalibration,
  ):
    """Compiles the models' step.

    Args:
      experiment: with a decoder.
      models: of the detector.
      limits: content of thresholds.json.
      normal: surprisals of normal events.
    """
    assert experiment.decoder is not None, "checked by the caller"
    self._symbols = experiment.vocabularies["symbols"]
    self._begin_S, self._step = stepper(experiment.decoder, models)
    self._limits, self._seen = limits, models.seen
    # Lists, because NumPy is slower for a single number.
    self._normal = [
      (group.scores.tolist(), group.above.tolist()) for group in normal.groups
    ]
    self._n = normal.n
    # Position and state of each open session, the longest idle session first.
    self._open: dict[str, tuple[int, np.ndarray]] = {}

  def __contains__(self, session: str) -> bool:
    return session in self._open

  def idle(self, most: int = 0) -> list[str]:
    """The open sessions, without the `most` sessions that are idle shortest."""
    return list(self._open)[: max(len(self._open) - most, 0)]

  def score(self, session: str, event: str, line: int) -> dict[str, Any]:
    """Scores an event and keeps its session open."""
    symbol = int(self._symbols.encode([event])[0])
    name = event if symbol == UNKNOWN else self._symbols.text([symbol])
    return self._score(session, symbol, name, line)

  def end(self, session: str) -> dict[str, Any]:
    """Scores the end of an open session and closes it."""
    row = self._score(session, END, RESERVED[END], None)
    del self._open[session]
    return row

  def _score(
    self, session: str, symbol: int, name: str, line: int | None
  ) -> dict[str, Any]:
    position, state_S = self._open.pop(session, (0, self._begin_S))
    state_S = self._step(state_S, symbol)
    self._open[session] = position + 1, state_S
    *_, nats, rank = state_S[: -len(self._normal)][-2:].tolist()
    unknown, rank = symbol == UNKNOWN, int(rank)
    if unknown:
      nats = max(nats, self._limits.unknown)
    p = self._p_value(symbol, state_S[-len(self._normal) :].tolist())
    in_top_k = rank <= self._limits.top_k
    flag = is_flagged(p, self._limits.rate)
    if self._limits.by_rank:
      flag = not in_top_k
    return {
      "session": session,
      "position": position,
      "line": line,
      "event": name,
      "nats": round(nats, 6),
      "bits": round(nats / math.log(2), 6),
      "probability": float(f"{math.exp(-nats):.6g}"),
      "rank": None if unknown else rank,
      "in_top_k": in_top_k,
      "unknown": unknown,
      "p_value": round(p, 6),
      "flag": bool(flag) or (unknown and self._limits.flag_unknown),
    }

  def _p_value(self, symbol: int, nlls: list[float]) -> float:
    """The p-value of an event by its surprisals, one of each model."""
    count = 1.0
    groups = zip(
      self._normal, nlls, self._seen[:, symbol].tolist(), strict=True
    )
    for (scores, above), nats, seen in groups:
      if not seen or symbol == UNKNOWN:
        nats = max(nats, self._limits.unknown)
      # As `round_scores` does.
      count += above[bisect.bisect_left(scores, round(nats, 4))]
    return count / (self._n + 1)


def follow(
  follower: Follower, config: Config, stdin: IO[bytes], stdout: IO[str]
):
  """Writes the scores of each event, a JSON object per line, as it arrives.

  Lines that are not events are skipped with a warning on stderr. A session ends
  at a line that ends it, at the end of the input, or when more than
  `detect.followed` sessions are open and it has been idle longest.

  Args:
    follower: scores the events.
    config: of the run.
    stdin: read by `events`.
    stdout: flushed after each line.

  Raises:
    UserError: as `events`.
  """
  # Sessions that are cut by times or lines do not overlap.
  consecutive = config.data.log_gap or config.data.log_lines
  most = 1 if consecutive else config.detect.followed

  def write(row: dict[str, Any]):
    stdout.write(json.dumps(row) + "\n")
    stdout.flush()

  skipped = SkippedLines()
  try:
    for session, event, line in events(stdin, config.data, skipped):
      if event is not None:
        write(follower.score(session, event, line))
        for idle in follower.idle(most):
          write(follower.end(idle))
      elif session in follower:
        write(follower.end(session))
      else:
        skipped.add(line, f"ends session {session!r}, which is not open")
  finally:
    skipped.finish()
  for session in follower.idle():
    write(follower.end(session))


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Scores the events of standard input until it ends.

  Raises:
    UserError: the model does not predict the next event, or thresholds are
      missing.
  """
  config = corpora.with_format(config)  # Of a run of an earlier version.
  if config.data.log_format == "auto":
    raise UserError(
      "--follow: data.log_format='auto': the files of the training have"
      " different formats; --config.data.log_format names that of the input"
    )
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  if "forward" not in experiment.heads or experiment.decoder is None:
    unless = f" unless {experiment.unless}" if experiment.unless else ""
    raise UserError(
      f"--follow: task={config.task!r} does not predict the next event{unless}"
    )
  config_lib.refuse_unless(
    config,
    {"data.boundaries": True, "data.mapping": "many_to_many"},
    "--follow scores every event of a session, including the first event",
  )
  folder = workdir / "detect"
  fileset.wait_for_move(folder, NAME, workdir / LOCK)
  for name in ("thresholds.json", CALIBRATION):
    if (folder / name).exists():
      manifest.verify(folder / name)
  limits = thresholds.read(folder / "thresholds.json")
  normal, seen = read_events(folder / CALIBRATION, limits.left_out)
  models, _ = ensemble.restore(
    experiment, [(workdir / name, step) for name, step in limits.members]
  )
  follower = Follower(experiment, Ensemble(models, seen), limits, normal)
  follow(follower, config, sys.stdin.buffer, sys.stdout)
