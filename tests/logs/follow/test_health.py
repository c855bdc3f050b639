"""Health: figures of a follower, and its probe."""

import json
import math
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from seqrnn.logs.follow import health
from seqrnn.logs.follow.health import Health


class Clock:
  """Seconds that pass when a test sets them."""

  now = 1000.0

  def __call__(self) -> float:
    return self.now


@pytest.fixture
def served():
  """A `Health`, its clock, and a function that asks its server for a path."""
  clock = Clock()
  figures = Health(clock)
  with health.serve(figures, "0") as url:

    def get(path, method="GET"):
      asked = urllib.request.Request(url + path, method=method)
      try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
          return answer.status, answer.read().decode()
      except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

    yield figures, clock, get


def look(figures, lag=math.nan, waiting=0, sessions=0, **texts):
  figures.look(
    lag_seconds=lag, input_lag_bytes=waiting, open_sessions=sessions, **texts
  )


def test_metrics_are_those_that_the_loop_has_counted(served):
  figures, _, get = served
  figures.take(lines=10, events=8, skipped_lines=1)
  figures.take(lines=5, events=5, unknown_events=2)
  for p in (0.0001, 0.02, 0.02, 0.7, 1.0):
    figures.p_values.observe(p)
  figures.alarms.labels("low").inc()
  figures.model.info({"steps": "40,50"})
  look(figures, 2.5, 4096, 17, drift="drift: since noon", silence="noon")
  status, text = get("/metrics")
  samples = {
    (sample.name, *sorted(sample.labels.items())): sample.value
    for family in text_string_to_metric_families(text)
    for sample in family.samples
  }
  expected = {"lines_total": 15, "events_total": 13, "unknown_events_total": 2}
  expected |= {"skipped_lines_total": 1, "open_sessions": 17, "drift": 1}
  expected |= {"lag_seconds": 2.5, "input_lag_bytes": 4096, "quiet_kinds": 0}
  expected |= {"session_p_value_count": 5, "chunk_seconds_count": 0}
  expected |= {"silence": 1}
  assert status == 200
  for name, value in expected.items():
    assert samples[(f"seqrnn_{name}",)] == value, name
  alarms = {k[1][1]: n for k, n in samples.items() if "alarms_total" in k[0]}
  assert alarms == {"low": 1, "medium": 0, "high": 0}
  assert samples["seqrnn_model_info", ("steps", "40,50")] == 1


def test_the_probe_fails_where_an_operator_has_to_act(served):
  figures, clock, get = served

  def probe():
    status, text = get("/healthz")
    state = json.loads(text)
    assert status == (200 if state["status"] == "ok" else 503)
    return state["status"]

  assert probe() == "starting"
  # How much waits is not known yet, rather than nothing.
  assert json.loads(get("/healthz")[1])["input_lag_bytes"] is None
  assert "\nseqrnn_input_lag_bytes NaN\n" in get("/metrics")[1]
  look(figures)
  assert probe() == "ok"
  clock.now += 3600  # An hour without input is no fault.
  assert probe() == "ok"
  look(figures, waiting=100)  # Input has come just now.
  clock.now += 59
  assert probe() == "ok"
  clock.now += 2
  assert probe() == "stuck"
  figures.take(lines=1)
  assert probe() == "ok"
  look(figures, reason="runs/a/follow: No space left on device")
  assert probe() == "failing"
  assert "No space left" in get("/healthz")[1]


def test_the_server_ends_also_with_an_error():
  before = threading.active_count()
  with pytest.raises(ZeroDivisionError), health.serve(Health(), "0") as url:
    raise ZeroDivisionError
  threads = [t for t in threading.enumerate() if "serve_forever" in t.name]
  for thread in threads:
    thread.join(10)
  assert threading.active_count() == before
  with pytest.raises(urllib.error.URLError):
    urllib.request.urlopen(url, timeout=10)


def test_slow_and_broken_clients_stop_nothing(monkeypatch, capfd):
  monkeypatch.setattr(health, "_DEADLINE", 0.1)
  with (
    health.serve(Health(), "0") as url,
    socket.create_connection(
      ("127.0.0.1", int(url.rpartition(":")[2])), timeout=0.02
    ) as client,
  ):
    for _ in range(500):  # Bytes of a request that has no end.
      try:
        client.sendall(b"x")
        if not client.recv(1):
          break
      except TimeoutError:
        continue
      except OSError:
        break
    else:
      pytest.fail("the client keeps its thread")
  assert capfd.readouterr().err.count("\n") == 1


def test_a_probe_is_answered_however_it_asks(served):
  _, _, get = served
  statuses = {"/healthz": 503, "/healthz?x=1": 503, "/health": 404, "/": 404}
  statuses |= {"/metrics": 200, "/metrics?x=1": 200}
  for path, status in statuses.items():
    assert get(path)[0] == status, path
    assert get(path, "HEAD") == (status, ""), path
