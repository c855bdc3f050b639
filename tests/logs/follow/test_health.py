"""Health: figures of a follower, its probe and its log line."""

import http.client
import json
import math
import socket
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from configs import base
from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.logs.follow import health

DEPLOYED = SimpleNamespace(
  detector=SimpleNamespace(steps=[40, 50]),
  normal=SimpleNamespace(events=SimpleNamespace(n=123)),
)


class Clock:
  """Seconds that pass when a test says so."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self) -> float:
    return self.now


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def config() -> Config:
  config: Config = base.get_config()
  config.detect.port = 0
  return config


@pytest.fixture
def served(config, clock, capfd):
  """A `Health`, and a function that gets a path from its server."""
  found = health.Health(DEPLOYED, config, clock)
  server = health.serve(found, config)
  assert server is not None
  # Where the port is any free one, it is named.
  assert capfd.readouterr() == ("", f"metrics: {server.url}/metrics\n")

  def get(path):
    try:
      with urllib.request.urlopen(server.url + path, timeout=10) as answer:
        return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
      return error.code, error.read().decode()

  found.at(None, 0, 0)
  yield found, get
  server.close()


def verdict(p, ended=True):
  return SimpleNamespace(p=p, ended=ended)


def samples(get):
  status, text = get("/metrics")
  assert status == 200
  return {
    (sample.name, *sorted(sample.labels.items())): sample.value
    for family in text_string_to_metric_families(text)
    for sample in family.samples
  }


def test_metrics_are_what_the_loop_has_counted(served):
  found, get = served
  found.took(lines=10, events=8, unknown=2, seconds=0.003, skipped=1)
  found.took(lines=5, events=5, seconds=0.2)
  for p in (0.0001, 0.02, 0.02, 0.7, 1.0):
    found.verdict(verdict(p))
  found.verdict(verdict(0.3, ended=False))
  found.verdict(verdict(math.nan))
  for kind, severity in ((1, "high"), (1, "high"), (101, "low"), (250, "low")):
    found.alarm({"kind": kind, "severity": severity})
  found.at(2.5, 4096, 17)
  said = samples(get)
  expected = {
    **{"lines_total": 15, "events_total": 13, "unknown_events_total": 2},
    **{"skipped_lines_total": 1, "open_sessions": 17, "drift": 0},
    **{"lag_seconds": 2.5, "input_lag_bytes": 4096},
    **{"session_p_value_count": 5, "event_seconds_count": 13},
  }
  for name, value in expected.items():
    assert said[(f"seqrnn_{name}",)] == value, name
  assert said[("seqrnn_event_seconds_sum",)] == pytest.approx(1.024)
  alarms = {key[1:]: n for key, n in said.items() if "alarms_total" in key[0]}
  assert alarms == {
    (("kind", "1"), ("severity", "high")): 2,
    (("kind", "other"), ("severity", "low")): 2,
  }
  bucket = lambda name, bound: said[(f"seqrnn_{name}_bucket", ("le", bound))]
  edges = [("0.0001", 1), ("0.01", 1), ("0.05", 3), ("0.7", 4), ("+Inf", 5)]
  assert [bucket("session_p_value", b) for b, _ in edges] == [
    n for _, n in edges
  ]
  assert bucket("event_seconds", "0.0025") == 0
  assert bucket("event_seconds", "0.005") == 8
  [info] = [key for key in said if key[0] == "seqrnn_model_info"]
  assert dict(info[1:]) == {
    **{"steps": "40,50", "rate": "0.005", "calibration": "123"}
  }


def test_drift_is_shown_until_a_new_model_is_there(served, config):
  found, get = served
  found.drift = "drift: since noon"
  assert samples(get)[("seqrnn_drift",)] == 1
  status, text = get("/healthz")
  assert status == 200 and json.loads(text)["drift"] == "drift: since noon"
  found.model(DEPLOYED, config)
  assert samples(get)[("seqrnn_drift",)] == 0


def test_probe_fails_if_waiting_input_is_not_read_for_a_minute(served, clock):
  found, get = served
  status, text = get("/healthz")
  assert status == 200 and json.loads(text)["status"] == "ok"
  clock.now += 3600  # An hour without input is no fault.
  assert get("/healthz")[0] == 200
  found.at(None, 100, 5)  # Input has come just now.
  clock.now += 59
  assert get("/healthz")[0] == 200
  clock.now += 2
  status, text = get("/healthz")
  assert status == 503 and json.loads(text)["status"] == "stuck"
  assert json.loads(text)["lag_bytes"] == 100
  found.took(lines=1)
  assert get("/healthz")[0] == 200


def test_probe_fails_while_the_state_cannot_be_written(served):
  found, get = served
  found.reason = "runs/a/follow: No space left on device"
  status, text = get("/healthz")
  assert status == 503 and json.loads(text)["status"] == "failing"
  assert "No space left" in json.loads(text)["reason"]
  found.reason = None
  assert get("/healthz")[0] == 200


def test_probe_fails_until_the_log_is_followed(config):
  found = health.Health(DEPLOYED, config)
  assert found.state()["status"] == "starting"
  found.reason = "No space left on device"
  assert found.state()["status"] == "failing"
  found.reason = None
  found.at(None, 7000, 0)
  assert found.state()["status"] == "ok"


def test_a_slow_client_has_a_deadline(config, monkeypatch):
  monkeypatch.setattr(health, "_DEADLINE", 0.1)
  server = health.Server(health.Health(DEPLOYED, config), "127.0.0.1", 0)
  port = int(server.url.rpartition(":")[2])
  with socket.create_connection(("127.0.0.1", port), timeout=0.02) as client:
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
  server.close()


def test_other_paths_are_not_found(served):
  _, get = served
  assert get("/")[0] == get("/metrics/x")[0] == get("/healthz/")[0] == 404


def test_a_client_that_hangs_up_stops_nothing(served, capfd):
  _, get = served
  server = get.__closure__[0].cell_contents
  port = int(server.url.rpartition(":")[2])
  for content in (
    b"",
    b"GET /metrics",
    b"\xff\n\n",
    b"GET /metrics HTTP/1.1\n",
  ):
    with socket.create_connection(("127.0.0.1", port)) as client:
      client.sendall(content)
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
  connection.request("POST", "/metrics", b"x")
  assert connection.getresponse().status == 501
  connection.close()
  assert get("/metrics")[0] == 200
  assert capfd.readouterr() == ("", "")


def test_a_log_line_a_minute(config, clock):
  found = health.Health(DEPLOYED, config, clock)
  assert found.minute() is None
  clock.now += 30
  found.took(lines=1300, events=1200, unknown=3)
  found.alarm({"kind": 2, "severity": "low"})
  found.at(3.4, 12, 45)
  assert found.minute() is None
  clock.now += 30
  assert found.minute() == (
    "following: 1,300 lines, 1,200 events (3 unknown), 20.0 events a second, 45"
    " open sessions, 1 alarm, 12 bytes to read, lag 3 s"
  )
  assert found.minute() is None
  clock.now += 120
  found.took(skipped=7)
  found.at(None, 0, 45)
  said = found.minute()
  assert said is not None and " 0.0 events a second," in said
  assert said.endswith("0 bytes to read, 7 lines skipped")


def test_a_port_in_use_is_refused_in_one_line(config):
  with socket.create_server(("127.0.0.1", 0)) as other:
    config.detect.port = other.getsockname()[1]
    with pytest.raises(UserError) as error:
      health.serve(health.Health(DEPLOYED, config), config)
  assert str(error.value) == (
    "config.detect.address='127.0.0.1', config.detect.port="
    f"{config.detect.port}: cannot be listened on: Address already in use"
  )


@pytest.mark.parametrize("address", ["no.such.host.invalid", "a" * 70, "::zz"])
def test_an_address_that_is_none_is_refused_in_one_line(config, address):
  config.detect.address = address
  with pytest.raises(UserError, match="cannot be listened on") as error:
    health.serve(health.Health(DEPLOYED, config), config)
  assert "\n" not in str(error.value)


def test_without_a_port_there_is_no_server(config):
  config.detect.port = None
  assert health.serve(health.Health(DEPLOYED, config), config) is None
