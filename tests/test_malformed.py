"""Files of the user: read as they should be, or refused in one line."""

import os
import socket
from pathlib import Path

import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.data import splits
from seqrnn.data.read import reading
from seqrnn.data.read.reading import NOT_UTF8
from seqrnn.data.sources import corpora
from seqrnn.data.sources.corpora import from_text
from seqrnn.errors import UserError
from tests.conftest import tiny

TOLD = NOT_UTF8.removeprefix("is not UTF-8; ")
TYPED = "a file of it can be read with data.errors=latin-1"
SEVERAL = "data.unit=id reads one id a line; data.unit=session reads several"
LONG = (
  "... has more than 65536 characters without white space, which data.unit={}"
  " separates by; data.unit=char reads them one by one"
)
EMPTY = "data.path='text': the corpus is empty, it has no symbols"

# A file `text`, the unit, and its documents or the error.
TEXTS = {
  "plain": (b"abc", "char", ["abc"]),
  "bytes of one to four": ("aé中😀".encode(), "char", ["aé中😀"]),
  "a mark": (b"\xef\xbb\xbfab", "char", ["ab"]),
  "a second mark": (b"\xef\xbb\xbf\xef\xbb\xbfa", "char", ["\ufeffa"]),
  "a mark within": (b"a\xef\xbb\xbfb", "char", ["a\ufeffb"]),
  "half a mark": (b"\xef\xbb", "char", f"text: byte 0 is not UTF-8; {TOLD}"),
  "lines of Windows": (b"a\r\nb\r\n", "char", ["a\nb\n"]),
  "a return too many": (b"a\r\r\nb", "char", ["a\r\nb"]),
  "empty lines": (b"\n\na\n\n", "word", [["\n", "\n", "a", "\n", "\n"]]),
  "lines of Unicode": ("a\u2028b\x85c".encode(), "word", [["a", "b", "c"]]),
  "blanks that are no lines": (b"1 2\x0c3\x1d4", "session", [list("1234")]),
  "a zero in a word": (b"a\0b c", "word", [["a\0b", "c"]]),
  "nothing": (b"", "char", EMPTY),
  "no word": (b" \t ", "word", EMPTY),
  "latin-1": (b"caf\xe9 \xe0", "char", f"text: byte 3 is not UTF-8; {TOLD}"),
  "cut in a character": (
    b"ab\xf0\x9f\x98",
    "char",
    f"text: byte 2 is not UTF-8; {TOLD}",
  ),
  "wrong in the second chunk": (
    b"\xc3\xa9" * 2**19 + b"\xff",
    "char",
    f"text: byte {2**20} is not UTF-8; {TOLD}",
  ),
  "any bytes": (bytes(range(256)), "byte", ["".join(map(chr, range(256)))]),
  "ids": (b" 7 \n\n08\n", "id", [["7", "08"]]),
  "two ids": (b"7\n\n8 9 10\n", "id", f"text: line 3: '8 9': {SEVERAL}"),
  "ids in columns": (b"a\tb", "id", f"text: line 1: 'a b': {SEVERAL}"),
  "sessions": (b"1 2\n\n3", "session", [["1", "2"], ["3"]]),
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


@pytest.mark.parametrize("name", TEXTS)
def test_a_text(here, name):
  content, unit, expected = TEXTS[name]
  (here / "text").write_bytes(content)
  config = tiny(here, {"data.path": "text", "data.unit": unit})
  assert outcome(lambda: documents(config.data)) == expected
  # In chunks of three bytes, too; a long text only as it is.
  if len(content) < 2**16:
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(reading, "CHUNK", 3)
      assert outcome(lambda: documents(config.data)) == expected


def test_wrong_bytes_are_replaced(here):
  config = tiny(here, {"data.path": "text", "data.errors": "replace"})
  for content, expected in (
    (b"a\xffb", "a\ufffdb"),
    (b"a\xf0\x9f\x98", "a\ufffd"),  # One for an incomplete character.
    (b"\xff\xef\xbb\xbf", "\ufffd\ufeff"),  # No mark: it is not at the start.
    (b"\xc3\r\n", "\ufffd\n"),
  ):
    (here / "text").write_bytes(content)
    assert documents(config.data) == [expected]


def make_files(here):
  """Files of all kinds, a pipe, a socket and links."""
  files = {
    "a": b"aa",
    "folder/b": b"bb",
    "folder/.hidden": b"no",
    "hidden/.git/config": b"no",
    "wrong/latin": b"\xe9",
    "wrong/utf8": b"good",
    "glob/x/y": b"y",
    "two\nlines": b"\xe9",
    "[a]": b"brackets",
  }
  for name, content in files.items():
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_bytes(content)
  (here / os.fsdecode(b"name\xff")).write_bytes(b"n")
  (here / "void").mkdir()
  os.mkfifo(here / "pipe")
  (here / "broken").mkdir()
  (here / "broken/link").symlink_to("nowhere")
  (here / "loop").symlink_to("loop")
  (here / "link").symlink_to("a")
  (here / "socket").mkdir()
  with socket.socket(socket.AF_UNIX) as made:
    made.bind("socket/s")


NO_FILE = "no such file"
PATHS = {
  "a": ["aa"],
  "link": ["aa"],
  "folder": ["bb"],
  "folder/.hidden": ["no"],  # Named, it is meant.
  "[a]": ["brackets"],
  "glob/*/*": ["y"],
  os.fsdecode(b"name\xff"): ["n"],
  "": "data.path='': must not be empty",
  "none": f"data.path='none': {NO_FILE}",
  "a\0b": f"data.path='a\\x00b': {NO_FILE}",
  "loop": "loop: cannot be read: Too many levels of symbolic links",
  "void": "data.path='void': no file in this folder",
  "broken": "broken/link: cannot be read: No such file or directory",
  "pipe": "pipe: not a regular file",
  "socket": "socket/s: not a regular file",
  "/dev/zero": "/dev/zero: not a regular file",
  "wrong": f"wrong/latin: byte 0 is not UTF-8; {TOLD}",
}


@pytest.mark.parametrize("path", PATHS, ids=ascii)
def test_a_path(here, path):
  make_files(here)
  config = tiny(here, {"data.path": path})
  assert outcome(lambda: documents(config.data)) == PATHS[path]


def test_a_file_that_cannot_be_read(here, monkeypatch):
  (here / "text").write_text("abc")

  def refuse(*_, **__):
    raise OSError(5, "Input/output error")

  monkeypatch.setattr(Path, "open", refuse)
  data = tiny(here, {"data.path": "text"}).data
  message = outcome(lambda: documents(data))
  assert message == "text: cannot be read: Input/output error"


FIELDS = {
  "both ways": (
    {"train_path": "text"},
    "data.path='text', data.train_path='text': give one path that is split"
    " here, or one for each split, not both",
  ),
  "one path of three": (
    {"path": None, "train_path": "text"},
    "data.validation_path=None: data.source=files needs data.path, or"
    " data.train_path, data.validation_path and data.test_path",
  ),
  "opcodes are no characters": (
    {"path": None, "source": "opcodes"},
    "data.unit='char': data.source=opcodes has unit session or id",
  ),
  "too few documents": (
    {"split": "documents"},
    "data.split='documents': 1 document: too few to hold whole ones out;"
    " data.split=tails holds out the end of each",
  ),
  "streams of little": (
    {"split": "stream_tails", "window": 99},
    "data.split='stream_tails': 60 symbols are too few for train.batch_size=4"
    " streams of data.window=99",
  ),
  "no second symbol": (
    {"path": "ones", "stateful": True, "boundaries": False, "split": "tails"},
    "data.stateful=True: no document has the two symbols that an input and its"
    " target need",
  ),
}


def make_batches(config):
  experiment = experiments.build(config, None)
  for split in ("train", "validation"):
    _ = experiment.batches(split, 0)[0]
  return "trains"


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_do_not_fit_the_text(here, name):
  (here / "text").write_text("abc" * 20)
  (here / "empty").touch()
  for folder, content in (("many", "abc" * 9), ("ones", "a")):
    (here / folder).mkdir()
    for n in range(3):
      (here / folder / f"{n}").write_text(content)
  fields, expected = FIELDS[name]
  fields = {f"data.{field}": value for field, value in fields.items()}
  config = tiny(here, {"data.path": "text", **fields})
  config_lib.check(config)
  assert outcome(lambda: make_batches(config)) == expected


def test_a_text_that_is_typed():
  for text, unit, expected in (
    (os.fsdecode(b"ab\xff"), "char", f"text: byte 2 is not UTF-8; {TYPED}"),
    ("1 2", "id", f"text: line 1: '1 2': {SEVERAL}"),
    (" \n", "word", [["\n"]]),
  ):
    pieces = outcome(lambda t=text, u=unit: [*from_text(t, u)])
    read = pieces if isinstance(pieces, str) else [p.symbols for p in pieces]
    assert read == expected
