"""Workdirs made by somebody else: one line or the right result, and no harm.

Each case changes a copy of a small trained workdir. Where it changes a
checkpoint, the checksums are written anew: whoever made it can do that, too.
"""

import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorstore

from seqrnn.errors import UserError
from seqrnn.run import load_run
from seqrnn.runtime.files import SUMS
from seqrnn.training import checkpoint
from tests.test_run import main

HUGE = 100 * 2**30  # Bytes of a file that takes none on disk.
LAST = "checkpoints/4"
SAMPLE = "--workdir=x --mode=sample --config.sample.length=8"


@pytest.fixture
def home(tmp_path, trained, monkeypatch):
  """A folder with a secret, a run lm, and a copy that a test may change, x.

  It has no checksums: who changes a file may leave them out.
  """
  monkeypatch.chdir(tmp_path)
  Path("secret").write_text("outside of the workdir")
  trained().rename("lm")
  renew(Path("x"))
  return tmp_path


def renew(workdir: Path):
  shutil.rmtree(workdir, ignore_errors=True)
  shutil.copytree("lm", workdir)
  Path(workdir, SUMS).unlink()


def state(folder: Path, without: str | None = None) -> dict[str, tuple]:
  """All that is in a folder, and when it was last changed."""
  found = {}
  for path in folder.rglob("*"):
    if path.name.startswith(".") and path.suffix == ".lock":
      continue  # A mode may have taken it before it was refused.
    if without is None or without not in path.parts:
      status = path.lstat()
      facts = (status.st_mode, status.st_size, status.st_ino)
      # Training locks its workdir, which changes that of the folder.
      found[str(path)] = (
        facts if path.is_dir() else (*facts, status.st_mtime_ns)
      )
  return found


# What a case does to a workdir.

Edit = Callable[[Path], None]


def text(name: str, content: str) -> Edit:
  """Another content of a file."""

  def edit(workdir):
    (workdir / name).write_text(content)
    checkpoint.write_sums(workdir / LAST)

  return edit


def field(name: str, value: Any) -> Edit:
  """Another value of a config's field."""

  def edit(workdir):
    path = workdir / "config.json"
    fields = json.loads(path.read_text())
    *groups, key = name.split(".")
    group = fields
    for part in groups:
      group = group.setdefault(part, {})
    group[key] = value
    path.write_text(json.dumps(fields))

  return edit


def array(name: str = "head.bias", **fields: Any) -> Edit:
  """Another array in a checkpoint, as zarr's metadata describe it."""

  def edit(workdir):
    folder = workdir.absolute() / LAST / "params"
    store = tensorstore.KvStore.open(
      {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    ).result()
    key = f"{name}/.zarray"
    found = json.loads(store.read(key).result().value)
    store.write(key, json.dumps({**found, **fields}).encode()).result()
    checkpoint.write_sums(workdir / LAST)

  return edit


def crc32c(content: bytes) -> int:
  crc = 0xFFFFFFFF
  for byte in content:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def elsewhere(workdir: Path):
  """Has the database of arrays look for its data outside of the workdir."""
  path = workdir / LAST / "params/manifest.ocdbt"
  content = path.read_bytes()[:-4]
  start = content.index(b"d/")
  name = content[start : start + 34]
  outside = b"../../../../" + b"s" * 22
  shutil.copy(path.parent / name.decode(), "s" * 22)
  content = content.replace(name, outside)
  path.write_bytes(content + struct.pack("<I", crc32c(content)))
  checkpoint.write_sums(workdir / LAST)


def link(name: str, target: str) -> Edit:
  def edit(workdir):
    path = workdir / name
    path.unlink(missing_ok=True)
    path.symlink_to(workdir.absolute().parent / target)

  return edit


def pipe(name: str) -> Edit:
  def edit(workdir):
    (workdir / name).unlink(missing_ok=True)
    os.mkfifo(workdir / name)

  return edit


ESCAPE = "\x1b]0;owned\x07\x9b2J\u202e"
LINK = "is a link; a workdir must hold files and folders only"
PIPE = "is a pipe, socket or device"
SHAPES = "does not hold the model of config.json"
DAMAGED = "no checkpoint is intact, checkpoint 4 is damaged"
BOTH = (SAMPLE, "--workdir=x")
INPUT = re.compile("may read data.path=.*, which x/config.json names, of .*\n")


# A name, the edit, a part of the line, and the commands.
REFUSED: list[tuple] = [
  # What leads out of the workdir, or keeps waiting.
  ("config is link", link("config.json", "lm/config.json"), LINK, BOTH),
  ("link deep inside", link(f"{LAST}/params/d/x", "secret"), LINK, BOTH),
  ("config is pipe", pipe("config.json"), PIPE, BOTH),
  # A file that is too large to be read.
  (
    "sparse config",
    lambda workdir: os.truncate(workdir / "config.json", HUGE),
    "larger than 1,048,576",
    BOTH,
  ),
  # config.json.
  (
    "code",
    text("config.json", "import os; os.mkdir('owned')"),
    "config.json: not a config in JSON",
    (*BOTH, "--config=x/config.json"),
  ),
  ("escapes in a value", field("data.unit", ESCAPE), r"\x1b]0;owned", BOTH),
  # Sizes that only a config claims.
  ("hidden size", field("model.hidden_size", 2**24), SHAPES, BOTH),
  # sha256, the checksums.
  (
    "no checksums",
    lambda w: (w / LAST / SUMS).unlink(),
    f"{DAMAGED}: sha256 is missing or broken",
    BOTH,
  ),
  (
    "escapes in a file's name",
    lambda workdir: (workdir / LAST / "params" / ESCAPE).touch(),
    r"\x1b]0;owned\x07\x9b2J\u202e differs from its checksum in sha256",
    BOTH,
  ),
  # Arrays.
  ("shape", array(shape=[2**40]), f"{SHAPES}: head.bias has shape [10", BOTH),
  ("driver", array(kvstore="http://127.0.0.1/"), SHAPES, BOTH),
  ("database leads out", elsewhere, "params: cannot be read: ", BOTH),
]


def test_it_is_refused_in_a_line(home, capfd):
  faults = []
  for name, edit, expected, lines in REFUSED:
    edit(Path("x"))
    for line in lines:
      other = "x" if "--mode" not in line else None  # Training locks x.
      before = state(home, other)
      status = main(line)
      err = INPUT.sub("", capfd.readouterr().err)
      good = err.startswith("error: ") and err[:-1].isprintable()
      if not good or expected not in err or len(err) > 2100 or status != 2:
        faults.append((name, line, status, err))
      if state(home, other) != before:
        faults.append((name, line, "a file was changed"))
    with pytest.raises(UserError):
      load_run("x")
    renew(Path("x"))
  assert not faults


@pytest.mark.usefixtures("home")
def test_a_terminal_gets_nothing_that_it_would_obey(capsys, monkeypatch):
  path = Path("x/vocabulary.json")
  content = json.loads(path.read_text())
  content["symbols"]["symbols"][:3] = ["\x1b", "\x9b", "\ud800"]
  path.write_text(json.dumps(content))
  sample = "--workdir=x --mode=sample --config.sample.prime=\x1b\x9b"
  predict = "--workdir=x --mode=predict --config.predict.text=\x1b\x9bab"
  assert main(sample) == 0
  assert "\x1b" in capsys.readouterr().out  # To a file or another program.
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
  for line in (sample, predict):
    assert main(line) == 0
    out = capsys.readouterr().out
    assert r"\x1b" in out and r"\x9b" in out
    assert "\x1b" not in re.sub(r"\x1b\[[\d;]*m", "", out)  # Rich's own colors.
    assert "\x9b" not in out
