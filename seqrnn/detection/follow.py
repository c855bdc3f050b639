"""detect --follow: events are scored as they come, one line each.

What a model has read of a session is kept and carried on; nothing is read
twice. So is the end of a session, once there is one. The scores are those of
the forward head over whole sessions.
"""

import bisect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.data import logs, vocabulary
from seqrnn.data.encoding import NOT_UTF8
from seqrnn.data.vocabulary import BEGIN, END, RESERVED, UNKNOWN
from seqrnn.detection import records
from seqrnn.detection.conformal import Calibration
from seqrnn.detection.detector import CALIBRATION, round_scores
from seqrnn.detection.findings import LOCK, NAME
from seqrnn.errors import UserError, visible
from seqrnn.experiment import Decoder, Experiment, Params, shapes
from seqrnn.inference import scoring
from seqrnn.runtime import fileset, manifest
from seqrnn.runtime.checkpoint import restore_params

_LONGEST = 2**16  # Bytes of a line.
_REPORTED = 10  # Lines that are left out; further ones are counted.


class LeftOut:
  """Reports lines that are no events on stderr: the first ones, then a count.

  Attributes:
    count: of the lines.
  """

  def __init__(self):
    self.count = 0

  def add(self, number: int, fault: str):
    """Counts a line, whose number and fault are reported if it is early."""
    self.count += 1
    if self.count <= _REPORTED:
      self._print(f"line {number}: left out, {fault}")
    if self.count == _REPORTED:
      self._print("further lines that are left out are counted, not reported")

  def finish(self):
    """Reports how many there were, where not all have been reported."""
    if self.count > _REPORTED:
      self._print(f"{self.count:,} lines were left out")

  def _print(self, text: str):
    try:
      print(visible(text), file=sys.stderr, flush=True)
    except OSError:  # Nobody reads it; events are scored all the same.
      with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())


def stepper(
  decoder: Decoder, params: Params
) -> tuple[np.ndarray, Callable[[np.ndarray, int], np.ndarray]]:
  """The state before a session, and a function state, event -> state.

  A state is one vector, for every array that a compiled function takes or gives
  costs as much time as a small layer. It ends with the last event, which the
  model has yet to read, and with its surprisal and rank. A float holds ids and
  ranks up to 2**24.
  """
  none = jnp.zeros(2)
  # The carry, the last two events, what is said of the last one.
  start_S, unravel = ravel_pytree((decoder.start(1), none, none))

  @jax.jit
  def advance(params, state_S):
    carry, events_2, _ = unravel(state_S)
    before_1, event_1 = events_2.astype(jnp.int32).reshape(2, 1)
    carry, logits_1V = decoder.step(params, carry, before_1)
    found = scoring.target_scores(logits_1V, event_1)
    said_2 = jnp.concatenate([found["nll"], found["rank"].astype(jnp.float32)])
    shifted_2 = jnp.repeat(events_2[1:], 2)
    return ravel_pytree((carry, shifted_2, said_2))[0]

  params = jax.device_put(params)

  def step(state_S, event):
    state_S = state_S.copy()
    state_S[-3] = event
    return np.asarray(advance(params, state_S))

  begun_S = np.array(start_S)
  begun_S[-4] = BEGIN
  step(begun_S, UNKNOWN)  # It is compiled before anything comes.
  return begun_S, step


def lines(stdin: IO[bytes], errors: str, left_out: LeftOut) -> Iterator[str]:
  """The lines as they come, without what ends them; empty where left out."""
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
      left_out.add(number, fault)
    yield text


def parse(text: str) -> tuple[str, str | None, bool] | None:
  """The session and the event of a line, and whether that ends the session.

  They stand side by side, with a tab or blanks between, or are fields of a JSON
  object, which may have more; one with a true `end` needs no event. None: it is
  not that.
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
  # True and false are whole numbers in Python, and name nothing.
  if not isinstance(ends, bool) or type(session) not in (str, int):
    return None
  if type(event) not in (str, int) and (event is not None or not ends):
    return None
  session, event = str(session), None if event is None else str(event)
  return (session, event, ends) if session and event != "" else None


def events(
  stdin: IO[bytes], data: Config, left_out: LeftOut
) -> Iterator[tuple[str, str | None, int]]:
  """Session, symbol and line of each event as it comes; without one, an end.

  Lines are those of a log where `data.unit` says so, else as `parse` has them.

  Raises:
    UserError: the input has ended, and no line was as `data` says.
  """
  found = lines(stdin, data.errors, left_out)
  if data.unit == "log":
    form = logs.form(data)
    name, leave_out = "standard input", left_out.add
    for event in logs.events(found, name, form, leave_out=leave_out):
      for session in event.sessions:
        yield session, event.symbol, event.line
    return
  for number, text in enumerate(found, 1):
    if parsed := parse(text):
      session, event, ends = parsed
      if event is not None:
        yield session, event, number
      if ends:
        yield session, None, number
    elif text.strip():
      left_out.add(
        number,
        "must be a session and an event: two words, or two fields with a tab"
        ' between, or {"session": ..., "event": ...}, or {"session": ...,'
        ' "end": true}',
      )


def follow(
  experiment: Experiment,
  params: Params,
  config: Config,
  thresholds: dict[str, Any],
  normal: Calibration,
  stdin: IO[bytes],
  stdout: IO[str],
):
  """Writes what is said of each event, a JSON object a line, as it comes.

  What is no event is left out, and reported on stderr. A session ends where a
  line says so, where it has waited longest of too many, and with the input.

  Args:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
    thresholds: as detection writes them.
    normal: surprisal of normal events, as detection has it.
    stdin: what `events` reads.
    stdout: is flushed after each line.

  Raises:
    UserError: as `events`.
  """
  assert experiment.decoder is not None, "the caller has asked"
  symbols = experiment.vocabularies["symbols"]
  begun_S, step = stepper(experiment.decoder, params)
  limits = thresholds["events"]
  above, floor, top_k = (
    float(limits[name]) for name in ("above", "unknown", "top_k")
  )
  by_rank = thresholds["rule"] == "topk"
  # As lists, for a number alone takes NumPy longer.
  places = normal.scores.tolist()
  p_values = normal.p_values(np.append(places, np.inf)).tolist()
  # Those cut by times or lines follow each other.
  in_turn = config.data.log_gap or config.data.log_lines
  most = 1 if in_turn else config.detect.followed
  # The session that has waited longest stands first.
  sessions: dict[str, tuple[int, np.ndarray]] = {}

  def say(session: str, symbol: int, event: str, line: int | None):
    position, state_S = sessions.pop(session, (0, begun_S))
    state_S = step(state_S, symbol)
    nats, rank = float(state_S[-2]), int(state_S[-1])
    unknown = symbol == UNKNOWN
    if unknown:
      nats = max(nats, floor)
    rounded = round(nats, 4)  # As `round_scores` does.
    said = {
      "session": session,
      "position": position,
      "line": line,
      "event": event,
      "nats": round(nats, 6),
      "bits": round(nats / math.log(2), 6),
      "probability": float(f"{math.exp(-nats):.6g}"),
      "rank": None if unknown else rank,
      "in_top_k": rank <= top_k,
      "unknown": unknown,
      "p_value": round(p_values[bisect.bisect_left(places, rounded)], 6),
      "flag": rank > top_k if by_rank else rounded > above,
    }
    stdout.write(json.dumps(said) + "\n")
    stdout.flush()
    if symbol != END:
      sessions[session] = position + 1, state_S

  def end(session: str):
    say(session, END, RESERVED[END], None)

  left_out = LeftOut()
  try:
    for session, event, line in events(stdin, config.data, left_out):
      if event is not None:
        symbol = int(symbols.encode([event])[0])
        known = event if symbol == UNKNOWN else symbols.text([symbol])
        say(session, symbol, known, line)
        if len(sessions) > most:
          end(next(iter(sessions)))
      elif session in sessions:
        end(session)
      else:
        fault = f"ends session {session!r}, of which no event is known"
        left_out.add(line, fault)
  finally:
    left_out.finish()
  for session in list(sessions):
    end(session)


def read_thresholds(path: Path, step: int) -> dict[str, Any]:
  """What detection has written of a checkpoint.

  Raises:
    UserError: it has not, or of another checkpoint, or with another head.
  """
  if not path.exists():
    raise UserError(
      f"--follow: {path}: no such file; --mode=detect without --follow writes"
      " it"
    )
  found = records.read_object(path)
  with records.reading(path):
    events, head, of = found["events"], found["head"], found["step"]
    numbers = [float(events[name]) for name in ("above", "unknown", "top_k")]
    if "rule" not in found or math.isnan(sum(numbers)):
      raise ValueError("a field is missing")
  if head != "forward":
    raise UserError(
      f"{path}: config.detect.head={head!r}: must be forward, for what comes"
      " after an event is not there yet; run --mode=detect with it"
    )
  if of != step:
    raise UserError(
      f"{path}: is of step {of}, the checkpoint of step {step}; run"
      " --mode=detect again"
    )
  return found


def read_normal(path: Path) -> Calibration:
  """Surprisal of normal events, as detection keeps it.

  Raises:
    UserError: it has not.
  """
  arrays = records.read_arrays(path)
  with records.reading(path):
    return Calibration(round_scores(arrays["nll"]), arrays["event_counts"])


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Follows standard input, until it ends.

  Raises:
    UserError: a model that does not say what comes next, or thresholds are
      missing.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  if "forward" not in experiment.heads or experiment.decoder is None:
    unless = " unless model.heads='all'" if experiment.fills_gaps else ""
    raise UserError(
      f"--follow: task={config.task!r} does not say which event comes next"
      f"{unless}"
    )
  configs.refuse_unless(
    config,
    {"data.boundaries": True, "data.mapping": "many_to_many"},
    "--follow scores each event of a session, from the first one on",
  )
  params, step = restore_params(
    workdir, config.checkpoint.step, shapes(experiment)
  )
  folder = workdir / "detect"
  fileset.wait_for_move(folder, NAME, workdir / LOCK)
  for name in ("thresholds.json", CALIBRATION):
    if (folder / name).exists():
      manifest.verify(folder / name)
  thresholds = read_thresholds(folder / "thresholds.json", step)
  normal = read_normal(folder / CALIBRATION)
  streams = sys.stdin.buffer, sys.stdout
  follow(experiment, params, config, thresholds, normal, *streams)
