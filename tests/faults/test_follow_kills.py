"""Following a log: whatever happens, each alarm is written once."""

import json
import random
import signal
import threading
import time

import pytest

from benchmarks import shop_log
from benchmarks.follow import Input
from seqrnn import experiments
from seqrnn.logs.detect import deployed
from seqrnn.logs.follow import follow, state
from seqrnn.logs.follow.state import ALARMS, NAME, open_state
from seqrnn.run import load_run
from tests.data.logs.test_tail import Log
from tests.faults.conftest import call

KILLS = 25
TRAINED = [
  "--config.data.log_header=<Date> <Time> <Level> <Content>",
  r"--config.data.log_session=(order-\d+)",
  "--config.data.test_fraction=0.2",
  "--config.model.hidden_size=16",
  "--config.model.layers=1",
  "--config.train.epochs=2",
  "--config.train.cpu_devices=1",
]
DETECTED = [
  "--mode=detect",
  "--config.detect.folds=2",
  "--config.detect.rate=0.2",
  "--config.detect.quiet=0",
]

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
  """A run with a detection, and the lines of another day of the shop."""
  folder = tmp_path_factory.mktemp("shop")
  shop_log.main([str(folder / "train.log"), "--orders=800"])
  shop_log.main([str(folder / "day.log"), "--orders=1500", "--seed=1"])
  workdir = folder / "run"
  source = f"--config.data.path={folder / 'train.log'}"
  config = str(follow.Path(__file__).parents[2] / "configs" / "logs.py")
  assert call(config, workdir, source, *TRAINED) == 0
  assert call(None, workdir, *DETECTED) == 0
  return workdir, (folder / "day.log").read_bytes().splitlines()


def rows_of(folder):
  rows = map(json.loads, (folder / ALARMS).read_text().splitlines())
  return [{**row, "line": None} for row in rows]


@pytest.fixture(scope="module")
def expected(shop, tmp_path_factory):
  """The alarms of a follower in this process that nothing stops."""
  workdir, lines = shop
  folder = tmp_path_factory.mktemp("whole")
  run = load_run(workdir)
  detection = deployed.restore(experiments.build, run.config, workdir)
  with open_state(folder, print) as stored:
    service = follow.Service(detection, folder, stored, lambda _: None)
    service.recover()
    source = Input(follow.LogPosition(), iter(lines), len(lines), 1000)
    service.follow(source, lambda: False)
  rows = rows_of(folder)
  assert len(rows) > 10
  return rows


class Writer(threading.Thread):
  """Writes lines to a log in small portions, and rotates it."""

  def __init__(self, log, lines, draw):
    super().__init__(daemon=True)
    self._log, self._lines, self._draw = log, lines, draw

  def run(self):
    for place in range(0, len(self._lines), 20):
      if self._draw.random() < 0.08 and self._log.path.stat().st_size:
        kind = self._draw.choice(("rename", "copy", "pack"))
        getattr(self._log, kind)()
      self._log.append(self._lines[place : place + 20])
      time.sleep(0.02)


def position(folder):
  """The position of a state, of which a process may follow the log."""
  stored = state.read_kinds(folder)
  return stored and follow.LogPosition(*stored[0]["position"])


def test_kills_at_random_moments(shop, expected, start, tmp_path):
  workdir, lines = shop
  draw, folder = random.Random(0), tmp_path / "state"
  log = Log(tmp_path / "app.log", draw)
  flags = [
    *("--mode=detect", "--follow", f"--config.detect.input={log.path}"),
    f"--config.detect.output={folder}",
  ]
  begun = 0

  def starts():
    return start(None, workdir, *flags)

  for kill in range(KILLS):
    process = starts()
    stop = len(lines) * (kill + 1) // (KILLS + 1)
    writer = Writer(log, lines[begun:stop], draw)
    begun = stop
    if kill % 5 == 4:  # While it starts, and the log goes on.
      writer.start()
      time.sleep(draw.uniform(0, 3))
    else:
      process.until((folder / NAME).exists)
      before = position(folder)
      writer.start()
      process.until(lambda before=before: position(folder) != before)
      time.sleep(draw.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.ended().status == -signal.SIGKILL
    assert not process.ended().err.replace("drift:", "").count("lost")
    writer.join()
  log.append(lines[begun:])
  process = starts()
  log.close()
  size = log.path.stat().st_size
  process.until(lambda: position(folder).offset == size)
  process.send_signal(signal.SIGTERM)
  done = process.ended()
  assert done.status == 0, done
  assert rows_of(folder) == expected
