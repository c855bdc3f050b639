"""Files that anyone may have made, and those that are there whole or not."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from seqrnn.errors import MachineError, UserError, visible
from seqrnn.runtime import files


def test_a_message_is_one_line_of_what_can_be_seen():
  assert visible("a\nb\u2028c\td\x1b[2J\x9b\u202e\ud800é") == (
    r"a b c\td\x1b[2J\x9b\u202e\ud800é"
  )
  ends = "a" * 1000, "b" * 1000
  assert visible(("\0" * 9999).join(ends)) == "...".join(ends)


def test_a_workdir_holds_files_and_folders_only(tmp_path, monkeypatch):
  files.check_links(tmp_path / "not/there")
  (tmp_path / "a/b").mkdir(parents=True)
  (tmp_path / "a/b/file").touch()
  (tmp_path.parent / "named").symlink_to(tmp_path)  # By the user.
  files.check_links(tmp_path.parent / "named")
  real = os.scandir

  def scandir(path):  # A training removes it just now.
    if path.endswith("b"):
      raise FileNotFoundError
    return real(path)

  (tmp_path / "a/b/link").symlink_to("file")
  with pytest.raises(UserError, match="b/link: is a link; a workdir must hold"):
    files.check_links(tmp_path)
  monkeypatch.setattr(os, "scandir", scandir)
  files.check_links(tmp_path)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
  path = tmp_path / "file"
  with files.atomic_write(path) as file:
    file.write("é\r\n")
    assert not path.exists()
  assert path.read_bytes() == "é\r\n".encode()
  with files.atomic_write(path, "wb") as first:
    first.write(b"\xff")
    with files.atomic_write(path) as second:  # Two writers do not meet.
      second.write("second")
    assert path.read_text() == "second"
  assert path.read_bytes() == b"\xff"
  line = "file: cannot be written: No space left on device$"
  with pytest.raises(UserError, match=line), files.atomic_write(path) as file:
    file.write("new")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert path.read_bytes() == b"\xff"
  assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_from_a_small_file(tmp_path):
  path = tmp_path / "a.json"
  path.write_bytes(b"{")
  with pytest.raises(UserError, match=r"a.json: not JSON \("):
    files.read_json(path, 2**20)
  path.write_bytes(b'{"a": [1]}')
  assert files.read_json(path, 10) == {"a": [1]}
  with pytest.raises(UserError, match="a.json: must not be larger than 9 byte"):
    files.read_json(path, 9)
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(UserError, match="pipe: must be a file"):
    files.read_json(tmp_path / "pipe", 2)


def test_a_lock_says_who_holds_it_and_goes_with_its_holder(tmp_path, capsys):
  path = tmp_path / "lock"
  code = (
    "import sys, time; from pathlib import Path\n"
    "from seqrnn.runtime import files\n"
    "with files.locked(Path(sys.argv[1]), 'trained'):\n"
    "  print(flush=True); time.sleep(600)"
  )
  command = [sys.executable, "-c", code, str(path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
    assert holder.stdout is not None
    holder.stdout.readline()
    line = (
      f"^{tmp_path}: is being trained by process {holder.pid} on .*; wait for"
      " it, or name another --workdir$"
    )
    with pytest.raises(MachineError, match=line), files.locked(path, "trained"):
      pass
    assert files.lock(path) is None
    threading.Timer(0.2, holder.kill).start()
    with files.locked(path, "trained", wait=True) as held:
      assert path.read_text().startswith(f"process {os.getpid()} on ")
      held.check()
  waits = capsys.readouterr().err
  assert waits.startswith(f"{tmp_path}: is being trained by process")
  assert waits.endswith("; waiting for it\n") and waits.count("\n") == 1


def test_a_lock_that_was_replaced_is_none(tmp_path):
  for again in (False, True):
    path = tmp_path / f"{again}" / "lock"
    path.parent.mkdir()
    with files.locked(path, "trained") as held:
      path.unlink()
      path.parent.rmdir()
      if again:
        path.parent.mkdir()
        second = files.lock(path)
        assert second is not None
        second.file.close()
      with pytest.raises(MachineError, match="lock: was removed or replaced"):
        held.check()
    assert path.exists() == again


def test_checked_files_survive_a_kill_and_a_changed_bit_is_noticed(
  tmp_path, monkeypatch
):
  contents = {"a.json": b"{}", "b.json": b"12"}
  files.write_checked(tmp_path, contents)
  path = tmp_path / "b.json"
  path.write_bytes(b"13")
  with pytest.raises(MachineError, match="b.json: differs from its checksum"):
    files.verify_file(path)
  (tmp_path / files.SUMS).unlink()  # As the message advises.
  files.verify_file(path)
  files.write_checked(tmp_path, contents)
  replace, left = os.replace, 0

  def dying(*names):
    nonlocal left
    if not left:
      raise KeyboardInterrupt
    left -= 1
    replace(*names)

  new = {"a.json": b"[]", "b.json": b"34"}
  for count in range(4):
    files.write_checked(tmp_path, contents)
    left = count
    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
      files.write_checked(tmp_path, new)
    monkeypatch.undo()
    for name in contents:
      files.verify_file(tmp_path / name)
    files.write_checked(tmp_path, new)
    assert path.read_bytes() == b"34"


def test_results_replace_older_ones_or_leave_them(tmp_path):
  for name in ("old.csv", "both.csv", "users.txt"):
    (tmp_path / name).write_text("old")

  def write(fail):
    with files.results(tmp_path, "mode", "old.csv".__eq__) as folder:
      (folder / "both.csv").write_text("new")
      (folder / "new.csv").write_text("new")
      if fail:
        raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write(fail=True)
  texts = lambda: {p.name: p.read_text() for p in tmp_path.iterdir()}
  assert texts() == dict.fromkeys(("old.csv", "both.csv", "users.txt"), "old")
  (tmp_path / ".mode.new").mkdir()  # A killed process has left it.
  write(fail=False)
  assert texts() == {"both.csv": "new", "new.csv": "new", "users.txt": "old"}
