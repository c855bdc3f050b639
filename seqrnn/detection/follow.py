"""detect --follow: events are scored as they come, one line each.

What a model has read of a session is kept and carried on; nothing is read
twice. So is the end of a session, once there is one. The scores are those of
the forward head over whole sessions.
"""

import bisect
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from seqrnn import config as configs
from seqrnn import fileset, manifest, scoring
from seqrnn.checkpoint import restore_params
from seqrnn.config import Config
from seqrnn.data import logs, vocabulary
from seqrnn.data.vocabulary import BEGIN, END, RESERVED, UNKNOWN
from seqrnn.detection.conformal import Calibration
from seqrnn.detection.detector import CALIBRATION, even, load
from seqrnn.detection.findings import LOCK, NAME
from seqrnn.errors import UserError
from seqrnn.evaluate import shapes
from seqrnn.experiment import Decoder, Experiment, Params

_LONGEST = 2**16  # Bytes of a line.


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
    found = scoring.figures(logits_1V, event_1)
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


def lines(stdin: IO[bytes], errors: str) -> Iterator[str]:
  """The lines as they come, without what ends them.

  One that cannot be read is empty, and told on stderr.
  """
  codec = ("latin-1",) if errors == "latin-1" else ("utf-8", errors)
  number = 0
  while line := stdin.readline(_LONGEST):
    number += 1
    text, fault = "", f"has more than {_LONGEST:,} bytes"
    if len(line) < _LONGEST or line.endswith(b"\n"):
      try:
        text, fault = line.rstrip(b"\r\n").decode(*codec), ""
      except UnicodeDecodeError:
        fault = "is not UTF-8"
    while len(line) == _LONGEST and not line.endswith(b"\n"):
      line = stdin.readline(_LONGEST)
    if fault:
      tell(number, fault)
    yield text


def tell(number: int, fault: str):
  """Says on stderr that a line is left out."""
  print(f"line {number}: left out, {fault}", file=sys.stderr, flush=True)


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
  if not isinstance(ends, bool) or not isinstance(session, str | int):
    return None
  if not isinstance(event, str | int) and (event is not None or not ends):
    return None
  session, event = str(session), None if event is None else str(event)
  return (session, event, ends) if session and event != "" else None


def events(
  stdin: IO[bytes], data: Config
) -> Iterator[tuple[str, str | None, int]]:
  """Session, symbol and line of each event as it comes; without one, an end.

  Lines are those of a log where `data.unit` says so, else as `parse` has them.
  """
  found = lines(stdin, data.errors)
  if data.unit == "log":
    for event in logs.events(found, "standard input", logs.form(data)):
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
      tell(
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

  What is no event is told on stderr, with its line, and left out. A session
  ends where a line says so, where it has waited longest of too many, and with
  the input.

  Args:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
    thresholds: as detection writes them.
    normal: surprisal of normal events, as detection has it.
    stdin: what `events` reads.
    stdout: is flushed after each line.
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
    rounded = round(nats, 4)  # As `even` does.
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

  for session, event, line in events(stdin, config.data):
    if event is not None:
      symbol = int(symbols.encode([event])[0])
      known = event if symbol == UNKNOWN else symbols.text([symbol])
      say(session, symbol, known, line)
      if len(sessions) > most:
        end(next(iter(sessions)))
    elif session in sessions:
      end(session)
    else:
      tell(line, f"ends session {session!r}, of which no event is known")
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
  found = configs.read_json(path)
  try:
    events, head, of = found["events"], found["head"], found["step"]
    numbers = [float(events[name]) for name in ("above", "unknown", "top_k")]
    known = "rule" in found and not math.isnan(sum(numbers))
  except (KeyError, TypeError, ValueError):
    known = False
  if not known:
    raise UserError(f"{path}: must be as --mode=detect writes it")
  if head != "forward":
    raise UserError(
      f"{path}: config.detect.head={head!r}: must be forward, for what comes"
      " after an event is not there yet; run --mode=detect with it"
    )
  if of != step:
    raise UserError(
      f"{path}: is of step {of}, the checkpoint of step {step}; run"
      " --mode=detect anew"
    )
  return found


def read_normal(path: Path) -> Calibration:
  """Surprisal of normal events, as detection keeps it.

  Raises:
    UserError: it has not.
  """
  arrays = load(path)
  try:
    return Calibration(even(arrays["nll"]), arrays["event_counts"])
  except (KeyError, TypeError, ValueError):
    raise UserError(f"{path}: must be as --mode=detect writes it") from None


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Follows standard input, until it ends.

  Raises:
    UserError: a model that does not say what comes next, or thresholds are
      missing.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  if "forward" not in experiment.heads:
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
  params, step = restore_params(workdir, config, shapes(experiment))
  folder = workdir / "detect"
  fileset.settled(folder, NAME, workdir / LOCK)
  for name in ("thresholds.json", CALIBRATION):
    if (folder / name).exists():
      manifest.verify(folder / name)
  thresholds = read_thresholds(folder / "thresholds.json", step)
  normal = read_normal(folder / CALIBRATION)
  streams = sys.stdin.buffer, sys.stdout
  follow(experiment, params, config, thresholds, normal, *streams)
