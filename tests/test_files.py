"""Files that anyone may have made, and those that are there whole or not."""

import errno
import os

import pytest

from seqrnn import files
from seqrnn.errors import UserError, visible


def test_a_message_is_one_line_of_what_can_be_seen():
  assert visible("a\nb\u2028c\td\x1b[2J\x9b\u202e\ud800é") == (
    r"a b c\td\x1b[2J\x9b\u202e\ud800é"
  )
  assert visible("a" * 1000 + "\0" * 9999 + "b" * 1000) == (
    "a" * 1000 + "..." + "b" * 1000
  )


def test_a_file_is_read_where_it_is_small_and_a_file(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"abc")
  assert files.read(path, 3) == b"abc"
  with pytest.raises(UserError, match="file: must not be larger than 2 bytes"):
    files.read(path, 2)
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(UserError, match="pipe: must be a file"):
    files.read(tmp_path / "pipe", 2)


def test_a_workdir_holds_files_and_folders_only(tmp_path, monkeypatch):
  files.inspect(tmp_path / "not/there")
  (tmp_path / "a/b").mkdir(parents=True)
  (tmp_path / "a/b/file").touch()
  (tmp_path.parent / "named").symlink_to(tmp_path)  # By the user.
  files.inspect(tmp_path.parent / "named")
  with pytest.raises(UserError, match="must be a folder, is a file"):
    files.inspect(tmp_path / "a/b/file")
  real = os.scandir

  def scandir(path):  # A training removes it just now.
    if path.endswith("b"):
      raise FileNotFoundError
    return real(path)

  (tmp_path / "a/b/link").symlink_to("file")
  with pytest.raises(UserError, match="b/link: is a link; a workdir must hold"):
    files.inspect(tmp_path)
  monkeypatch.setattr(os, "scandir", scandir)
  files.inspect(tmp_path)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
  path = tmp_path / "file"
  with files.written(path) as file:
    file.write("é\r\n")
    assert not path.exists()
  assert path.read_bytes() == "é\r\n".encode()
  with files.written(path, "wb") as file:
    file.write(b"\xff")
    assert path.read_text() == "é\n"
  assert path.read_bytes() == b"\xff"
  assert list(tmp_path.iterdir()) == [path]


def test_where_it_cannot_be_written_the_old_one_stays(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  line = "file: cannot be written: No space left on device$"
  with pytest.raises(UserError, match=line), files.written(path) as file:
    file.write("new")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]
  with (
    pytest.raises(UserError, match="a/file: cannot be written: No such file"),
    files.written(tmp_path / "a" / "file"),
  ):
    pass
