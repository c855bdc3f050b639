"""How a follower does: metrics for Prometheus, and a probe.

`serve` shows them over HTTP from a thread: /metrics in the format of
Prometheus, /healthz as JSON, with the status 503 if an operator has to act.
"""

import http.server
import io
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import prometheus_client as prometheus

from seqrnn.errors import UserError
from seqrnn.logs.detect.findings import SEVERITIES

_STUCK = 60.0  # Seconds in which waiting input is not read.
_DEADLINE = 10.0  # Seconds of a request.
_P = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, *(n / 10 for n in range(1, 11)))
_COUNTERS = ("lines", "events", "unknown_events", "skipped_lines")
_GAUGES = ("input_lag_bytes", "open_sessions", "lag_seconds", "quiet_kinds")
_GAUGES = ("rate", "least_p_value", *_GAUGES)
_TEXTS = ("drift", "silence")  # The metric is 1 if there is a text.


class Health:
  """The figures of a follower since it was started.

  Attributes:
    figures: by the names of the metrics without labels; `drift` is the warning
      of drift, `silence` since when the log is silent, `reason` why the state
      cannot be written, `rate` is `detect.rate`, and `least_p_value` the least
      p-value of a session.
    p_values: of sessions that have ended.
    seconds: from the arrival of lines to their verdicts.
    model: the models.
    alarms: that were written, by severity.
  """

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self.registry = prometheus.CollectorRegistry()
    add = lambda kind, name, **how: kind(
      f"seqrnn_{name}", name, registry=self.registry, **how
    )
    self.p_values = add(prometheus.Histogram, "session_p_value", buckets=_P)
    self.seconds = add(prometheus.Histogram, "chunk_seconds")
    self.model = add(prometheus.Info, "model")
    self.alarms = add(prometheus.Counter, "alarms", labelnames=["severity"])
    for severity in SEVERITIES[1:]:  # From 0 on, so that the first one counts.
      self.alarms.labels(severity)
    self.figures: dict[str, Any] = dict.fromkeys(_COUNTERS + _GAUGES, 0)
    self.figures |= dict.fromkeys(("reason", *_TEXTS), "")
    self.figures |= dict.fromkeys(_GAUGES[:-1], math.nan)  # Until `look`.
    self._counters = {name: add(prometheus.Counter, name) for name in _COUNTERS}
    for name in _GAUGES + _TEXTS:
      kind = bool if name in _TEXTS else float
      value = lambda name=name, kind=kind: kind(self.figures[name])
      add(prometheus.Gauge, name).set_function(value)
    self._clock, self._moved = clock, None  # When no input waited, or was read.

  def take(self, **counts: int):
    """Adds to counters of lines that were read."""
    for name, count in counts.items():
      self.figures[name] += count
      self._counters[name].inc(count)
    self._moved = self._clock()

  def look(self, **figures: Any):
    """Sets figures before lines are read."""
    if self._moved is None or not self.figures["input_lag_bytes"]:
      self._moved = self._clock()
    self.figures |= figures

  def probe(self) -> dict[str, Any]:
    """The content of /healthz; `status` is ok, starting, stuck or failing."""
    status = "starting" if self._moved is None else "ok"
    status = "failing" if self.figures["reason"] else status
    waited = self._clock() - (self._moved or math.inf)
    if self.figures["input_lag_bytes"] and waited > _STUCK:
      status = "stuck"
    figures = {k: None if x != x else x for k, x in self.figures.items()}
    return {"status": status, **figures}


class _Handler(prometheus.MetricsHandler):
  health: Health

  def handle(self):
    """Ends the thread of a client at the deadline, however slow it is."""
    hang_up = self.connection.shutdown
    timer = threading.Timer(_DEADLINE, hang_up, [socket.SHUT_RDWR])
    timer.daemon = True
    timer.start()
    with suppress(OSError):  # The client has hung up.
      super().handle()
    timer.cancel()

  def do_HEAD(self):
    """Sends the head of the answer to a GET."""
    client, self.wfile = self.wfile, io.BytesIO()
    self.do_GET()
    client.write(self.wfile.getvalue().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    self.wfile = client

  def do_GET(self):
    path = self.path.partition("?")[0]
    if path == "/metrics":
      return super().do_GET()
    if path != "/healthz":  # A probe of another path must not succeed.
      return self.send_error(404)
    probe = self.health.probe()
    self.send_response(200 if probe["status"] == "ok" else 503)
    self.send_header("Content-Type", "application/json")
    self.end_headers()
    self.wfile.write(json.dumps(probe).encode() + b"\n")


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
  fields = {"health": health, "registry": health.registry}
  handler = type("Handler", (_Handler,), fields)
  try:
    place = address or "127.0.0.1", int(port)
    server = http.server.ThreadingHTTPServer(place, handler)
  except (OSError, UnicodeError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(
      f"config.detect.port={where!r}: cannot be listened on: {reason}"
    ) from None
  threading.Thread(target=server.serve_forever, daemon=True).start()
  url = f"http://{place[0]}:{server.server_port}"
  print(f"metrics: {url}/metrics", file=sys.stderr, flush=True)
  with server, ExitStack() as stack:
    stack.callback(server.shutdown)
    yield url
