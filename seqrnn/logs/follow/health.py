"""How a follower does: figures for Prometheus, for a probe, and for its log.

`Health` counts in plain numbers, which cost the loop of a follower nothing, and
`serve` shows them over HTTP from a thread: /metrics in the format of
Prometheus, /healthz as JSON, with the status 503 if an operator has to act.
"""

import bisect
import http.server
import itertools
import json
import math
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from seqrnn.config.read import Config
from seqrnn.errors import UserError, counted

_MINUTE = 60.0
_DEADLINE = 10.0  # Seconds of a request.
_KINDS = 100  # Kinds of alarms with figures of their own.
_P = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, *(n / 10 for n in range(1, 11)))
_SECONDS = tuple(m * 10.0**e for e in range(-5, 1) for m in (1, 2.5, 5)) + (10,)


class Histogram:
  """Numbers of values up to each bound, and their sum."""

  def __init__(self, bounds: tuple[float, ...]):
    self._bounds, self._counts = bounds, [0] * (len(bounds) + 1)
    self._sum = 0.0

  def add(self, value: float, count: int = 1):
    """Adds a value, `count` times."""
    self._counts[bisect.bisect_left(self._bounds, value)] += count
    self._sum += value * count

  def family(self) -> tuple[list[tuple[str, float]], float]:
    """The number of values up to each bound, by its text, and the sum."""
    names = *(f"{bound:g}" for bound in self._bounds), "+Inf"
    totals = map(float, itertools.accumulate(self._counts))
    return list(zip(names, totals, strict=True)), self._sum


class Health:
  """The figures of a follower since it was started.

  Attributes:
    events: number of events.
    quiet: number of kinds whose alarms are not written, as they are false.
  """

  def __init__(
    self,
    deployed: Any,
    config: Config,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins to count.

    Args:
      deployed: the model, as `deployed.Deployed`.
      config: of the run.
      clock: seconds, for the log line and the probe.
    """
    self._clock = clock
    self.lines = self.events = self.unknown = self.skipped = 0
    self.alarms: Counter[tuple[str, str]] = Counter()
    self.p_values, self.latency = Histogram(_P), Histogram(_SECONDS)
    self.lag_seconds: float | None = None
    self.lag_bytes = self.open_sessions = self.quiet = 0
    self.reason: str | None = None
    self._follows = False
    self._moved = self._reported = clock()
    self._before = 0  # Events at the last log line.
    self.model(deployed, config)

  def model(self, deployed: Any, config: Config):
    """A model was taken up; the drift of the one before is over."""
    self.info = {
      "steps": ",".join(map(str, deployed.detector.steps)),
      "rate": f"{config.detect.rate:g}",
      "calibration": str(deployed.normal.events.n),
    }
    self.drift: str | None = None

  def took(
    self,
    lines: int = 0,
    events: int = 0,
    unknown: int = 0,
    seconds: float = 0.0,
    skipped: int = 0,
  ):
    """Lines were read and their events scored.

    Args:
      lines: number of lines, skipped ones included.
      events: number of events.
      unknown: number of events that training has not seen.
      seconds: from when the lines were there to when their verdicts were.
      skipped: number of lines that no event was read from.
    """
    self.lines += lines
    self.events += events
    self.unknown += unknown
    self.skipped += skipped
    if events:
      self.latency.add(seconds, events)
    self._moved = self._clock()

  def verdict(self, verdict: Any):
    """Takes a `follower.Verdict`; only final ones have a place in figures."""
    if verdict.ended and not math.isnan(verdict.p):
      self.p_values.add(verdict.p)

  def alarm(self, row: dict[str, Any]):
    """An alarm was written, `row` as in alarms.jsonl."""
    kind = str(row["kind"]) if row["kind"] <= _KINDS else "other"
    self.alarms[kind, row["severity"]] += 1

  def at(self, lag_seconds: float | None, lag_bytes: int, open_sessions: int):
    """Where the follower is; called before each chunk and each wait for input.

    After the first call the follower is ready.

    Args:
      lag_seconds: wall clock minus the time of the last event, if it has one.
      lag_bytes: of the input that wait, those of the chunk included.
      open_sessions: number of sessions that have not ended.
    """
    if not self.lag_bytes and lag_bytes:
      self._moved = self._clock()  # There was nothing to do before.
    self.lag_seconds, self.lag_bytes = lag_seconds, lag_bytes
    self.open_sessions, self._follows = open_sessions, True

  def minute(self) -> str | None:
    """The log line, once a minute."""
    now = self._clock()
    if now - self._reported < _MINUTE:
      return None
    rate = (self.events - self._before) / (now - self._reported)
    self._reported, self._before = now, self.events
    alarms, skipped = self.alarms.total(), self.skipped
    lag = self.lag_seconds
    return (
      f"following: {self.lines:,} lines, {self.events:,} events"
      f" ({self.unknown:,} unknown), {rate:,.1f} events a second,"
      f" {self.open_sessions:,} open sessions,"
      f" {counted(alarms, 'alarm')}, {self.lag_bytes:,} bytes to read"
      + (f", lag {lag:,.0f} s" if lag is not None else "")
      + (f", {skipped:,} lines skipped" if skipped else "")
    )

  def state(self) -> dict[str, Any]:
    """What /healthz shows; `status` is ok, starting, stuck or failing."""
    waited = self._clock() - self._moved
    status = "ok" if self._follows else "starting"
    status = "failing" if self.reason else status
    if self.lag_bytes and waited > _MINUTE:
      status = "stuck"
    return {
      "status": status,
      "reason": self.reason,
      "lines": self.lines,
      "events": self.events,
      "open_sessions": self.open_sessions,
      "alarms": self.alarms.total(),
      "lag_seconds": self.lag_seconds,
      "lag_bytes": self.lag_bytes,
      "seconds_since_input": round(waited, 1),
      "drift": self.drift,
    }

  def collect(self) -> Iterator[Any]:
    """The metrics, as prometheus_client asks for them."""
    from prometheus_client import core

    alarms = core.CounterMetricFamily(
      "seqrnn_alarms", "Alarms that were written.", labels=("kind", "severity")
    )
    for labels, count in [*self.alarms.items()]:
      alarms.add_metric(labels, count)
    yield alarms
    yield core.InfoMetricFamily("seqrnn_model", "The model.", self.info)
    counter: Any = core.CounterMetricFamily
    histogram: Any = core.HistogramMetricFamily
    gauge: Any = core.GaugeMetricFamily
    lag = math.nan if self.lag_seconds is None else self.lag_seconds
    p_values, latency = self.p_values.family(), self.latency.family()
    for kind, name, help, *value in (
      (counter, "lines", "Lines that were read.", self.lines),
      (counter, "events", "Events that were scored.", self.events),
      (counter, "unknown_events", "Events not seen in training.", self.unknown),
      (counter, "skipped_lines", "Lines without an event.", self.skipped),
      (histogram, "session_p_value", "Of sessions that ended.", *p_values),
      (histogram, "event_seconds", "From an event to its verdict.", *latency),
      (gauge, "lag_seconds", "Wall clock minus the last event's time.", lag),
      (gauge, "input_lag_bytes", "Bytes of input that wait.", self.lag_bytes),
      (gauge, "open_sessions", "Sessions not ended.", self.open_sessions),
      (gauge, "quiet_kinds", "Kinds of alarms that are false.", self.quiet),
      (gauge, "drift", "1: the model no longer fits.", bool(self.drift)),
    ):
      yield kind(f"seqrnn_{name}", help, *value)


class _Handler(http.server.BaseHTTPRequestHandler):
  server: "Server"

  def setup(self):
    """Ends the thread of a client at the deadline, however slow it is."""
    super().setup()
    self._timer = threading.Timer(_DEADLINE, self._hang_up)
    self._timer.daemon = True
    self._timer.start()

  def finish(self):
    self._timer.cancel()
    super().finish()

  def _hang_up(self):
    with suppress(OSError):  # The client was faster.
      self.connection.shutdown(socket.SHUT_RDWR)

  def do_GET(self):
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    status, kind = 200, "application/json"
    match self.path.partition("?")[0]:
      case "/metrics":
        kind = CONTENT_TYPE_LATEST
        content = generate_latest(self.server.registry)
      case "/healthz":
        state = self.server.health.state()
        status = 200 if state["status"] == "ok" else 503
        content = json.dumps(state).encode() + b"\n"
      case _:
        status, kind = 404, "text/plain"
        content = b"/metrics and /healthz\n"
    self.send_response(status)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, *_: Any):
    """Requests are not logged."""


class Server(http.server.ThreadingHTTPServer):
  """An HTTP server in a thread that ends with the process.

  Attributes:
    url: without a path.
  """

  daemon_threads = True

  def __init__(self, health: Health, address: str, port: int):
    """Listens.

    Raises:
      UserError: the address or the port cannot be used.
    """
    from prometheus_client import CollectorRegistry

    self.health, self.registry = health, CollectorRegistry()
    self.registry.register(health)
    six = ":" in address
    self.address_family = socket.AF_INET6 if six else socket.AF_INET
    try:
      super().__init__((address, port), _Handler)
    except (OSError, UnicodeError) as error:
      reason = getattr(error, "strerror", None) or error
      raise UserError(
        f"config.detect.address={address!r}, config.detect.port={port}: cannot"
        f" be listened on: {reason}"
      ) from None
    shown = f"[{address}]" if six else address
    self.url = f"http://{shown}:{self.server_address[1]}"
    run = self.serve_forever
    threading.Thread(target=run, name="metrics", daemon=True).start()

  def handle_error(self, request, client_address):
    """Clients that hang up are no errors of ours."""

  def close(self):
    """Frees the port."""
    self.shutdown()
    self.server_close()


def serve(health: Health, config: Config) -> Server | None:
  """Shows the figures at `detect.address` and `detect.port`, if it is set.

  The address is written on stderr.

  Raises:
    UserError: as `Server`.
  """
  settings = config.detect
  if settings.port is None:
    return None
  server = Server(health, settings.address, settings.port)
  print(f"metrics: {server.url}/metrics", file=sys.stderr, flush=True)
  return server
