"""How a follower does: figures for Prometheus, for a probe, and for its log.

`Health` counts in plain numbers, which cost the loop of a follower nothing, and
`serve` shows them over HTTP from a thread: /metrics in the format of
Prometheus, /healthz as JSON, with the status 503 if an operator has to act.
"""

import bisect
import http.server
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

from seqrnn.errors import UserError
from seqrnn.settings.config import Config

_MINUTE = 60.0
_DEADLINE = 10.0  # Seconds of a request.
_KINDS = 100  # Kinds of alarms with figures of their own.
_P = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, *(n / 10 for n in range(1, 11)))
_SECONDS = tuple(m * 10.0**e for e in range(-5, 1) for m in (1, 2.5, 5)) + (10,)


class Histogram:
  """Numbers of values up to each bound, and their sum."""

  def __init__(self, bounds: tuple[float, ...]):
    self.bounds = (*bounds, math.inf)
    self._counts = [0] * len(self.bounds)
    self.sum = 0.0

  def add(self, value: float, count: int = 1):
    """Adds a value, `count` times."""
    self._counts[bisect.bisect_left(self.bounds, value)] += count
    self.sum += value * count

  def buckets(self) -> list[tuple[str, float]]:
    """The bounds as text, and the number of values up to each."""
    total, found = 0, []
    for bound, count in zip(self.bounds, self._counts, strict=True):
      total += count
      text = "+Inf" if bound == math.inf else f"{bound:g}"
      found.append((text, float(total)))
    return found


class Health:
  """The figures of a follower since it was started.

  Attributes:
    alarms: (kind, severity) -> number of alarms.
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
    self.drift: str | None = None
    self.reason: str | None = None
    self._follows = False
    self._moved = self._said = clock()
    self._before = 0  # Events at the last log line.
    self.model(deployed, config)

  def model(self, deployed: Any, config: Config):
    """A model was taken up; the drift of the one before is over."""
    steps = ",".join(map(str, deployed.detector.steps))
    self.info = {
      "steps": steps,
      "rate": f"{config.detect.rate:g}",
      "calibration": str(deployed.normal.events.n),
    }
    self.drift = None

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

  def failing(self, reason: str | None):
    """Why the state cannot be written; None: it can."""
    self.reason = reason

  def drifted(self, text: str | None):
    """The warning that the model no longer fits; None: it fits."""
    self.drift = text

  def minute(self) -> str | None:
    """The log line, once a minute."""
    now = self._clock()
    if now - self._said < _MINUTE:
      return None
    rate = (self.events - self._before) / (now - self._said)
    self._said, self._before = now, self.events
    alarms = self.alarms.total()
    parts = [
      f"{self.lines:,} lines",
      f"{self.events:,} events ({self.unknown:,} unknown)",
      f"{rate:,.1f} events a second",
      f"{self.open_sessions:,} open sessions",
      f"{alarms:,} alarm{'s' * (alarms != 1)}",
      f"{self.lag_bytes:,} bytes to read",
    ]
    if self.lag_seconds is not None:
      parts.append(f"lag {self.lag_seconds:,.0f} s")
    if self.skipped:
      parts.append(f"{self.skipped:,} lines skipped")
    return f"following: {', '.join(parts)}"

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

    for name, help, value in (
      ("lines", "Lines that were read.", self.lines),
      ("events", "Events that were scored.", self.events),
      ("unknown_events", "Events that training has not seen.", self.unknown),
      ("skipped_lines", "Lines without an event.", self.skipped),
    ):
      yield core.CounterMetricFamily(f"seqrnn_{name}", help, value)
    alarms = core.CounterMetricFamily(
      "seqrnn_alarms", "Alarms that were written.", labels=("kind", "severity")
    )
    for labels, count in [*self.alarms.items()]:
      alarms.add_metric(labels, count)
    yield alarms
    for name, help, found in (
      ("session_p_value", "p-values of sessions that ended.", self.p_values),
      ("event_seconds", "From an event to its verdict.", self.latency),
    ):
      yield core.HistogramMetricFamily(
        f"seqrnn_{name}", help, found.buckets(), found.sum
      )
    lag = math.nan if self.lag_seconds is None else self.lag_seconds
    for name, help, value in (
      ("lag_seconds", "Wall clock minus the time of the last event.", lag),
      ("input_lag_bytes", "Bytes of the input that wait.", self.lag_bytes),
      ("open_sessions", "Sessions that have not ended.", self.open_sessions),
      ("quiet_kinds", "Kinds of alarms that are false.", self.quiet),
      ("drift", "1: the model no longer fits.", int(bool(self.drift))),
    ):
      yield core.GaugeMetricFamily(f"seqrnn_{name}", help, value)
    yield core.InfoMetricFamily("seqrnn_model", "The model.", self.info)


class Server:
  """An HTTP server in a thread that ends with the process.

  Attributes:
    url: without a path.
  """

  def __init__(self, health: Health, address: str, port: int):
    """Listens.

    Raises:
      UserError: the address or the port cannot be used.
    """
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(health)
    six = ":" in address

    class _Server(http.server.ThreadingHTTPServer):
      address_family = socket.AF_INET6 if six else socket.AF_INET
      daemon_threads = True

      def handle_error(self, request, client_address):
        """Clients that hang up are no errors of ours."""

    try:
      self._server = _Server((address, port), _handler(health, registry))
    except (OSError, UnicodeError) as error:
      reason = getattr(error, "strerror", None) or error
      raise UserError(
        f"config.detect.address={address!r}, config.detect.port={port}: cannot"
        f" be listened on: {reason}"
      ) from None
    shown = f"[{address}]" if six else address
    self.url = f"http://{shown}:{self._server.server_address[1]}"
    run = self._server.serve_forever
    threading.Thread(target=run, name="metrics", daemon=True).start()

  def close(self):
    """Frees the port."""
    self._server.shutdown()
    self._server.server_close()


def _handler(
  health: Health, registry: Any
) -> type[http.server.BaseHTTPRequestHandler]:
  from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

  class Handler(http.server.BaseHTTPRequestHandler):
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
      status, kind = 200, "application/json"
      match self.path.partition("?")[0]:
        case "/metrics":
          content, kind = generate_latest(registry), CONTENT_TYPE_LATEST
        case "/healthz":
          state = health.state()
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

  return Handler


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
