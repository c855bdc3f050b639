"""Encoding: the size of chunks changes nothing; each mistake has its place."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.data.read import columns, reading
from seqrnn.data.read.encoding import encode
from seqrnn.data.read.reading import Source
from seqrnn.data.splits import whole
from seqrnn.errors import UserError

UNITS = ("char", "byte", "word", "id", "session")


def encoded(contents, unit, errors="strict", chunk=reading.CHUNK):
  """The corpus of some files as plain values, or the error."""
  before, reading.CHUNK = reading.CHUNK, chunk
  sources = [Source(f"f{i}", content) for i, content in enumerate(contents)]
  try:
    corpus = encode(sources, unit, errors)
  except UserError as error:
    return str(error)
  finally:
    reading.CHUNK = before
  return plain(corpus)


def plain(corpus):
  return (
    corpus.symbols,
    corpus.ids.dtype.str,
    corpus.ids.tolist(),
    corpus.bounds.tolist(),
    list(corpus.names),
  )


def oracle(content, unit):
  """The documents of a file that is in memory as a whole."""
  if unit == "byte":
    return [content.decode("latin-1")]
  text = content.decode().removeprefix("\ufeff").replace("\r\n", "\n")
  lines = text.split("\n")
  if unit == "char":
    return [text]
  if unit == "word":
    words = [word for line in lines for word in (*line.split(), "\n")]
    return [words[:-1]]
  if unit == "session":
    return [line.split() for line in lines]
  return [[line.strip() for line in lines if line.strip()]]


# Parts that are special to some unit, or one byte short of it.
PARTS = [
  *(text.encode() for text in "ab \n\r\t\0\x1c\x85\u2028\ufeffé\U0001f600"),
  b"\r\n",
  b"word",
  b"\xef\xbb",
]
WRONG = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90", b"\xe2\x82", b"\x80"]
content = st.lists(st.sampled_from(PARTS[:-1])).map(b"".join)
any_content = st.lists(st.sampled_from(PARTS + WRONG)).map(b"".join)


@pytest.mark.parametrize("unit", ["char", "byte", "word", "session"])
@given(content)
def test_a_unit_of_a_whole_file(unit, content):
  expected = [symbols for symbols in oracle(content, unit) if symbols]
  corpus = encode([Source("f", content)], unit, "strict")
  assert [d.symbols for d in whole(corpus).documents()] == expected


@pytest.mark.parametrize("unit", UNITS)
@given(st.lists(any_content, min_size=1, max_size=3))
def test_the_size_of_chunks_changes_nothing(unit, contents):
  expected = encoded(contents, unit, "replace")
  if not isinstance(expected, str):
    for chunk in (1, 2, 7):
      assert encoded(contents, unit, "replace", chunk) == expected


@given(any_content)
def test_wrong_bytes_are_replaced_or_refused_with_their_place(content):
  text = content.decode(errors="replace").removeprefix("\ufeff")
  corpus = encode([Source("f", content)], "char", "replace")
  assert corpus.text(0, len(corpus.ids)) == text.replace("\r\n", "\n")
  latin = encode([Source("f", content)], "char", "latin-1")
  assert latin.text(0, len(latin.ids)) == content.decode("latin-1").replace(
    "\r\n", "\n"
  )
  try:
    content.decode()
  except UnicodeDecodeError as error:
    for chunk in (1, 3, 100):
      assert encoded([b"fine", content], "char", chunk=chunk) == (
        f"f1: byte {error.start} is not UTF-8; is it a file of text?"
        " data.errors=latin-1 reads each byte as a character,"
        " data.errors=replace puts U+FFFD there"
      )


def test_utf_16_without_its_mark_is_refused():
  for text in ("a line of text\n" * 3, "\u0441\u0442\u0440\u043e \n" * 40):
    for code in ("utf-16-le", "utf-16-be"):
      for unit in ("char", "word", "session"):
        assert encoded([text.encode(code)], unit) == (
          "f0: seems to be UTF-16; convert the file to UTF-8"
        )
  # A block that a crash left in a log, records that end in 0, a few of them.
  for content in (b"\0" * 99 + b"a", b"record\0" * 9, b"ab\0" + b"a" * 999):
    assert encoded([content], "char")[2]


@pytest.mark.parametrize("count", [256, 257, 65_537])
def test_ids_are_as_wide_as_they_must(count, monkeypatch):
  monkeypatch.setattr(columns, "_BLOCK", 1000)
  codes = np.arange(0x100, 0x100 + count + 0x800)
  codes = codes[(codes < 0xD800) | (codes >= 0xE000)][:count]
  text = "".join(map(chr, codes)) * 2
  monkeypatch.setattr(reading, "CHUNK", 10_007)
  corpus = encode([Source("f", text.encode())], "char", "strict")
  assert corpus.ids.dtype.itemsize == {256: 1, 257: 2, 65_537: 4}[count]
  assert np.array_equal(corpus.ids, np.tile(np.arange(count), 2))
  assert corpus.symbols == list(text[:count])


def read(path, while_read=lambda: None):
  for _ in reading.chunks(Source(path.name, path)):
    while_read()


def test_a_file_that_changes_is_refused(tmp_path):
  path = tmp_path / "log"

  def grow():
    with path.open("a") as file:
      file.write("more")

  path.write_text("text")
  with pytest.raises(UserError, match=r"/log: changed while it was read$"):
    read(path, grow)
  assert [*reading.lines(Source("log", path), "strict", may_grow=True)]


def test_files_that_cannot_be_read(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(UserError, match="/pipe: not a regular file$"):
    read(tmp_path / "pipe")
  (tmp_path / "f.gz").touch()
  with pytest.raises(UserError, match=r"/f\.gz: cannot be read: it is empty"):
    read(tmp_path / "f.gz")
