"""Checksums of the files of a workdir."""

import json
import os

import pytest

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import files, manifest

ROWS = b"step,loss\n1,2\n2,1\n"


@pytest.fixture
def folder(tmp_path):
  manifest.write(tmp_path, {"config.json": b"{}", "vocabulary.json": b"ab"})
  (tmp_path / "metrics.csv").write_bytes(ROWS)
  manifest.record_rows(tmp_path, {"metrics.csv": ROWS, "timing.csv": b""})
  return tmp_path


def test_a_file_that_was_changed_is_refused(folder):
  manifest.verify(folder / "vocabulary.json")
  (folder / "vocabulary.json").write_text("ac")
  line = "vocabulary.json: differs from its checksum in manifest.json; restore"
  with pytest.raises(MachineError, match=line):
    manifest.verify(folder / "vocabulary.json")
  manifest.verify(folder / "config.json")
  (folder / "other.json").write_text("{}")
  with pytest.raises(MachineError, match="other.json: differs from"):
    manifest.verify(folder / "other.json")
  os.unlink(folder / manifest.NAME)  # As the line advises.
  manifest.verify(folder / "vocabulary.json")


@pytest.mark.parametrize(
  ("content", "holds"),
  [
    (ROWS, True),
    (ROWS + b"3,1", True),
    (ROWS[:-1], False),
    (ROWS.replace(b"2,1", b"2,3"), False),
    (b"", False),
    (None, True),  # It was moved away.
  ],
)
def test_a_table_may_grow(folder, content, holds):
  (folder / "metrics.csv").unlink()
  if content is not None:
    (folder / "metrics.csv").write_bytes(content)
  if holds:
    manifest.verify(folder / "metrics.csv")
  else:
    with pytest.raises(MachineError, match="metrics.csv: differs from"):
      manifest.verify(folder / "metrics.csv")
  manifest.verify(folder / "timing.csv")


def test_wherever_writing_ends_the_files_are_what_is_recorded(
  folder, monkeypatch
):
  """Every step of it is the last one once; then it goes on."""
  replace, left = os.replace, 0

  def dying(old, new):
    nonlocal left
    if not left:
      raise KeyboardInterrupt
    left -= 1
    replace(old, new)

  monkeypatch.setattr(os, "replace", dying)
  for steps in range(5):
    left = steps
    contents = {"config.json": b"{%d}" % steps, "vocabulary.json": b"a" * steps}
    if steps < 4:
      with pytest.raises(KeyboardInterrupt):
        manifest.write(folder, contents)
    else:
      manifest.write(folder, contents)
    for name in contents:
      manifest.verify(folder / name)
    assert not list(folder.glob(".*"))
  assert (folder / "config.json").read_bytes() == b"{4}"
  record = json.loads((folder / manifest.NAME).read_text())
  assert [len(sums) for sums in record["files"].values()] == [1, 1]
  assert list(record["rows"]) == ["metrics.csv"]


def flip(content: bytes, place: int) -> bytes:
  return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_damaged_manifest_is_refused(folder):
  path = folder / manifest.NAME
  whole = path.read_bytes()
  for place in range(len(whole)):
    path.write_bytes(flip(whole, place))
    if whole[place : place + 1].isspace():  # Others mean the same.
      continue
    with pytest.raises(UserError, match="manifest.json: is damaged"):
      manifest.verify(folder / "config.json")
  for content in (b"", b"[]", b"[" * 200_000, b'{"files": {}}', b"\xff"):
    path.write_bytes(content)
    with pytest.raises(UserError, match="manifest.json: is damaged; restore"):
      manifest.verify(folder / "config.json")


def test_without_a_manifest_a_process_warns_once(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(manifest, "_warned", [])
  with files.atomic_write(tmp_path / "config.json") as file:
    file.write("{}")
  manifest.verify(tmp_path / "config.json")
  manifest.record_rows(tmp_path, {"metrics.csv": ROWS})
  assert not (tmp_path / manifest.NAME).exists()
  for _ in range(2):
    manifest.warn_if_missing(tmp_path / "config.json")
  _, err = capsys.readouterr()
  assert err.count("\n") == 1
  assert err.startswith(f"{tmp_path}: has no manifest.json, so its files are")
