"""How a follower does: metrics for Prometheus, a probe, and a log line.

`serve` shows them over HTTP from a thread: /metrics in the format of
Prometheus, /healthz as JSON, with the status 503 if an operator has to act.
"""

import http.server
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import prometheus_client as prometheus
from prometheus_client import core

from seqrnn.errors import UserError

_MINUTE = 60.0
_DEADLINE = 10.0  # Seconds of a request.
_KINDS = 100  # Kinds of alarms with figures of their own.
_P = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, *(n / 10 for n in range(1, 11)))
_COUNTERS = ("lines", "events", "unknown_events", "skipped_lines")
_GAUGES = ("lag_seconds", "input_lag_bytes", "open_sessions", "quiet_kinds")


class Health:
  """The figures of a follower since it was started.

  Attributes:
    figures: by the names of the metrics without labels.
    fault: why the state cannot be written; empty: it can.
    drift: the warning of drift; empty: there is none.
    silence: since when the log is silent, in words; empty: it is not.
    p_values: of sessions that have ended.
    seconds: from the arrival of lines to their verdicts.
    model: the models that were taken up.
  """

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self.registry = prometheus.CollectorRegistry()
    add = lambda kind, name, *labels, **how: kind(
      f"seqrnn_{name}", name, *labels, registry=self.registry, **how
    )
    self.p_values = add(prometheus.Histogram, "session_p_value", buckets=_P)
    self.seconds = add(prometheus.Histogram, "chunk_seconds")
    self.model = add(prometheus.Info, "model")
    self._alarms = add(prometheus.Counter, "alarms", ("kind", "severity"))
    self.registry.register(self)
    self.figures: dict[str, Any] = dict.fromkeys((*_COUNTERS, *_GAUGES), 0)
    self.figures |= {"alarms": 0, "lag_seconds": math.nan}
    self.fault = self.drift = self.silence = ""
    self._clock, self._follows, self._before = clock, False, 0
    self._moved = self._reported = clock()

  def collect(self) -> list[core.Metric]:
    """The figures, as prometheus_client asks for them."""
    kinds = dict.fromkeys(_COUNTERS, core.CounterMetricFamily)
    kinds |= dict.fromkeys(
      (*_GAUGES, "drift", "silence"), core.GaugeMetricFamily
    )
    words = {"drift": bool(self.drift), "silence": bool(self.silence)}
    figures = {**self.figures, **words}
    return [kinds[x](f"seqrnn_{x}", x, value=figures[x]) for x in kinds]

  def take(self, **counts: int):
    """Adds to counters of lines that were read."""
    for name, count in counts.items():
      self.figures[name] += count
    self._moved = self._clock()

  def alarm(self, row: dict[str, Any]):
    """Counts an alarm that was written, `row` as in alarms.jsonl."""
    kind = row.get("kind", "silence")
    kind = "other" if isinstance(kind, int) and kind > _KINDS else str(kind)
    self._alarms.labels(kind, row["severity"]).inc()
    self.figures["alarms"] += 1

  def look(self, **gauges: Any) -> str | None:
    """Sets gauges before lines are read; the log line, once a minute."""
    now = self._clock()
    if gauges["input_lag_bytes"] and not self.figures["input_lag_bytes"]:
      self._moved = now  # No input has waited before.
    self.figures |= gauges
    self._follows, seconds = True, now - self._reported
    if seconds < _MINUTE:
      return None
    rate = (self.figures["events"] - self._before) / seconds
    self._reported, self._before = now, self.figures["events"]
    return (
      "following: {lines:,} lines, {events:,} events ({unknown_events:,}"
      " unknown), {rate:,.1f} events a second, {open_sessions:,} open sessions,"
      " {alarms:,} alarms, {input_lag_bytes:,} bytes to read, lag"
      " {lag_seconds:,.0f} s, {skipped_lines:,} lines skipped"
    ).format(rate=rate, **self.figures)

  def state(self) -> dict[str, Any]:
    """The content of /healthz; `status` is ok, starting, stuck or failing."""
    waited = self._clock() - self._moved
    status = "ok" if self._follows else "starting"
    status = "failing" if self.fault else status
    if self.figures["input_lag_bytes"] and waited > _MINUTE:
      status = "stuck"
    more = {"seconds_since_input": round(waited, 1)}
    more |= {"drift": self.drift, "silence": self.silence}
    figures = {k: None if x != x else x for k, x in self.figures.items()}
    return {"status": status, "reason": self.fault, **figures, **more}


class _Handler(http.server.BaseHTTPRequestHandler):
  health: Health

  def handle(self):
    """Ends the thread of a client at the deadline, however slow it is."""
    timer = threading.Timer(_DEADLINE, self._hang_up)
    timer.daemon = True
    timer.start()
    with suppress(OSError):  # The client has hung up.
      super().handle()
    timer.cancel()

  def _hang_up(self):
    with suppress(OSError):  # The client was faster.
      self.connection.shutdown(socket.SHUT_RDWR)

  def do_GET(self):
    status, content = 404, b"/metrics and /healthz\n"
    kind = prometheus.CONTENT_TYPE_LATEST
    match self.path.partition("?")[0]:
      case "/metrics":
        status, content = 200, prometheus.generate_latest(self.health.registry)
      case "/healthz":
        state, kind = self.health.state(), "application/json"
        status = 200 if state["status"] == "ok" else 503
        content = json.dumps(state).encode() + b"\n"
    self.send_response(status)
    self.send_header("Content-Type", kind)
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, *_: Any):
    """Requests are not logged."""


@contextmanager
def serve(health: Health, where: str) -> Iterator[str]:
  """Serves the figures from a thread; yields the address of the server.

  Args:
    health: the figures.
    where: as `detect.port`.

  Raises:
    UserError: the address or the port cannot be used.
  """
  address, _, port = where.rpartition(":")
  address = address or "127.0.0.1"
  handler = type("Handler", (_Handler,), {"health": health})
  try:
    server = http.server.ThreadingHTTPServer((address, int(port)), handler)
  except (OSError, UnicodeError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(
      f"config.detect.port={where!r}: cannot be listened on: {reason}"
    ) from None
  threading.Thread(target=server.serve_forever, daemon=True).start()
  url = f"http://{address}:{server.server_port}"
  print(f"metrics: {url}/metrics", file=sys.stderr, flush=True)
  with server:
    yield url
    server.shutdown()
