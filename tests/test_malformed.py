"""Files of the user: read as they should be, or refused in one line."""

import os

import pytest

from seqrnn.data import splits
from seqrnn.data.read import reading
from seqrnn.data.read.reading import NOT_UTF8
from seqrnn.data.sources import corpora
from seqrnn.errors import UserError
from tests.conftest import tiny

TOLD = NOT_UTF8.removeprefix("is not UTF-8; ")
LONG = (
  "... has more than 65536 characters without white space, which data.unit={}"
  " separates by; data.unit=char reads them one by one"
)
EMPTY = "data.path='text': the corpus is empty, it has no symbols"

# A file `text`, the unit, and its documents or the error.
TEXTS = {
  "a mark": (b"\xef\xbb\xbfab", "char", ["ab"]),
  "lines of Windows": (b"a\r\nb\r\n", "char", ["a\nb\n"]),
  "blanks that are no lines": (b"1 2\x0c3\x1d4", "session", [list("1234")]),
  "nothing": (b"", "char", EMPTY),
  "latin-1": (b"caf\xe9 \xe0", "char", f"text: byte 3 is not UTF-8; {TOLD}"),
  "ids": (b" 7 \n\n08\n", "id", [["7", "08"]]),
  "a word without end": (
    b"a b\n\n" + b"x" * 2**20,
    "word",
    f"text: '{'x' * 20}'" + LONG.format("word"),
  ),
}


def outcome(act):
  try:
    return act()
  except UserError as error:
    return str(error)


def documents(data):
  pieces = splits.whole(corpora.read_corpus(data))
  return [document.symbols for document in pieces.documents()]


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_a_text(here):
  for name, (content, unit, expected) in TEXTS.items():
    (here / "text").write_bytes(content)
    config = tiny(here, {"data.path": "text", "data.unit": unit})
    assert outcome(lambda c=config: documents(c.data)) == expected, name
    # In chunks of three bytes, too; a long text only as it is.
    if len(content) < 2**16:
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", 3)
        assert outcome(lambda c=config: documents(c.data)) == expected, name


def make_files(here):
  """Files of all kinds, a pipe and links."""
  files = {
    "a": b"aa",
    "folder/b": b"bb",
    "folder/.hidden": b"no",
    "wrong/latin": b"\xe9",
    "glob/x/y": b"y",
    "[a]": b"brackets",
  }
  for name, content in files.items():
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_bytes(content)
  (here / "void").mkdir()
  os.mkfifo(here / "pipe")
  (here / "loop").symlink_to("loop")
  (here / "link").symlink_to("a")


NO_FILE = "no such file"
PATHS = {
  "a": ["aa"],
  "link": ["aa"],
  "folder": ["bb"],
  "[a]": ["brackets"],
  "glob/*/*": ["y"],
  "none": f"data.path='none': {NO_FILE}",
  "a\0b": f"data.path='a\\x00b': {NO_FILE}",
  "loop": "loop: cannot be read: Too many levels of symbolic links",
  "void": "data.path='void': no file in this folder",
  "pipe": "pipe: not a regular file",
  "wrong": f"wrong/latin: byte 0 is not UTF-8; {TOLD}",
}


def test_a_path(here):
  make_files(here)
  for path, expected in PATHS.items():
    config = tiny(here, {"data.path": path})
    assert outcome(lambda c=config: documents(c.data)) == expected, path
