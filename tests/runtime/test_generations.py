"""Generations: the model in use is a whole one, whatever is killed."""

import random
import subprocess
import sys
import time

import pytest

from seqrnn.errors import UserError
from seqrnn.runtime import generations

CHILD = """
import sys
from pathlib import Path
from seqrnn.runtime import generations
workdir = Path(sys.argv[1])
print("begun", flush=True)
while True:
  known = generations.read(workdir)
  generations.remove_others(workdir, known.kept)
  folder = generations.folder_of(workdir, known.new)
  folder.mkdir(parents=True)
  for name in ("first", "last"):
    (folder / name).write_text("x")
  generations.use(workdir, known, known.new)
"""


@pytest.mark.slow
def test_a_kill_at_any_time_leaves_a_whole_model(tmp_path):
  draw, seen = random.Random(1), []
  for _ in range(20):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
      assert child.stdout is not None and child.stdout.readline() == b"begun\n"
      time.sleep(draw.random() / 50)
      child.kill()
    known = generations.read(tmp_path)
    for number in known.kept:
      folder = generations.folder_of(tmp_path, number)
      assert {path.name for path in folder.iterdir()} == {"first", "last"}
    assert generations.current(tmp_path).exists() and len(known.kept) <= 3
    seen.append(known.current)
  assert seen == sorted(seen) and seen[-1] > 3


def test_a_folder_knows_its_workdir_and_a_damaged_file_is_refused(tmp_path):
  assert generations.current(tmp_path) == tmp_path
  assert generations.workdir_of(tmp_path) == tmp_path
  folder = generations.folder_of(tmp_path, 2)
  folder.mkdir(parents=True)
  assert generations.workdir_of(folder) == folder  # It is no run's.
  generations.use(tmp_path, generations.read(tmp_path), 2)
  (tmp_path / "config.json").touch()
  assert generations.current(tmp_path) == folder
  assert generations.workdir_of(folder) == tmp_path
  assert generations.read(tmp_path).new == 3
  # What a kill leaves is removed with the other models.
  (tmp_path / ".refresh.json.0a.tmp").touch()
  (tmp_path / "refresh" / "1").mkdir()
  generations.remove_others(tmp_path, [2])
  names = {"config.json", "refresh", "refresh.json"}
  assert {path.name for path in tmp_path.iterdir()} == names
  folder.rename(tmp_path / "2")
  folder.with_name("1").mkdir()
  path = tmp_path / "refresh.json"
  path.write_text('{"current": 1, "kept": [1, 2]}')
  assert generations.read(tmp_path) == generations.Generations(1, (1,))
  path.write_text('{"current": 2, "kept": [1, 2]}')
  with pytest.raises(UserError, match=r"model 2 is missing; .* \[0, 1\] for"):
    generations.read(tmp_path)
  path = tmp_path / "refresh.json"
  for text in ("[]", "{", '{"current": 3, "kept": [2]}', '{"current": "../x"}'):
    path.write_text(text)
    with pytest.raises(UserError, match="refresh.json: "):
      generations.current(tmp_path)
