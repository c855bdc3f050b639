"""Sets of files that are there as a whole, whenever a process is killed."""

import subprocess
import sys
import threading
import time

import pytest

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import fileset


def owned(name):
  return name.endswith(".csv")


def whole(folder):
  """All files of a folder, those that are hidden left out."""
  return {
    path.name: path.read_text()
    for path in folder.iterdir()
    if not path.name.startswith(".")
  }


OLD = {"a.csv": "old", "b.csv": "old", "kept.txt": "kept"}
NEW = {"a.csv": "new", "c.csv": "new", "kept.txt": "kept"}


@pytest.fixture
def folder(tmp_path):
  for name, text in OLD.items():
    (tmp_path / name).write_text(text)
  return tmp_path


def renew(folder):
  with fileset.atomic_files(folder, "set", owned) as staged:
    for name in ("a.csv", "c.csv"):
      (staged / name).write_text("new")


def test_fileset_take_their_places_together(folder):
  with (
    pytest.raises(MachineError, match="cannot be written: No space"),
    fileset.atomic_files(folder, "set", owned) as staged,
  ):
    (staged / "a.csv").write_text("half")
    assert whole(folder) == OLD
    raise MachineError("cannot be written: No space")
  assert whole(folder) == OLD and not list(folder.glob(".*"))
  renew(folder)
  assert whole(folder) == NEW and not list(folder.glob(".*"))


def test_wherever_it_is_killed_a_set_is_whole(folder):
  """A process ends at each call that changes a folder, one after the other."""
  code = (
    "import os, sys; from pathlib import Path\n"
    "from tests.runtime import test_fileset\n"
    "left = int(sys.argv[2])\n"
    "def dying(event, _):\n"
    "  global left\n"
    "  if event in {'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir'}:\n"
    "    left -= 1\n"
    "    if left < 0: os._exit(9)\n"
    "sys.addaudithook(dying)\n"
    "test_fileset.renew(Path(sys.argv[1]))"
  )
  seen = []
  for left in range(30):
    done = subprocess.run([sys.executable, "-c", code, folder, str(left)])
    fileset.wait_for_move(folder, "set", folder / ".lock")
    seen.append(whole(folder))
    assert seen[-1] in (OLD, NEW)
    if done.returncode == 0:
      break
    for path in folder.glob("*.csv"):
      path.unlink()
    for name, text in OLD.items():
      (folder / name).write_text(text)
  assert OLD in seen and seen.count(NEW) > 3
  assert sorted(p.name for p in folder.glob(".*")) == [".lock"]


def test_what_two_processes_write_is_of_one_of_them(tmp_path):
  begun = threading.Event()

  def first():
    with fileset.results(tmp_path, "evaluate", "evaluated") as staged:
      (staged / "a.csv").write_text("first")
      begun.set()
      time.sleep(0.1)  # Longer, and the other one waits longer.
      (staged / "c.csv").write_text("first")

  thread = threading.Thread(target=first)
  thread.start()
  begun.wait()
  with fileset.results(tmp_path, "evaluate", "evaluated") as staged:
    assert whole(tmp_path) == {"a.csv": "first", "c.csv": "first"}
    (staged / "a.csv").write_text("second")
  thread.join()
  assert whole(tmp_path) == {"a.csv": "second", "c.csv": "first"}


def test_a_wrong_set_is_refused(folder):
  (folder / ".set.whole").mkdir()
  for content in ("[]", '{"new": ["../a"], "gone": []}', '{"new": 1}'):
    (folder / ".set.whole" / "set.json").write_text(content)
    with pytest.raises(UserError, match="set.whole: is no complete set"):
      fileset.finish_move(folder, "set")
  assert whole(folder) == OLD
