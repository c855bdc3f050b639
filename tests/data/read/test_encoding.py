"""Encoding: chunks are seen by nobody, and each mistake has its place."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrnn.data.documents import collect
from seqrnn.data.read import encoding, reading
from seqrnn.data.read.encoding import UNITS, encode_in_memory
from seqrnn.data.read.reading import Source
from seqrnn.data.splits import whole
from seqrnn.errors import UserError

examples = settings(deadline=None, database=None, max_examples=60)


def encoded(contents, unit, errors="strict", chunk=reading.CHUNK):
  """The corpus of some files as plain values, or what is said of them."""
  before, reading.CHUNK = reading.CHUNK, chunk
  sources = [Source(f"f{i}", content) for i, content in enumerate(contents)]
  try:
    corpus = encode_in_memory(sources, unit, errors)
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
    corpus.group.tolist(),
    list(corpus.groups),
  )


def oracle(content, unit):
  """What a unit means, for a file that is in memory as a whole."""
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


# What is special to some unit, or one byte short of it.
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
@examples
@given(content)
def test_a_unit_means_what_it_means_of_the_whole(unit, content):
  expected = [symbols for symbols in oracle(content, unit) if symbols]
  corpus = encode_in_memory([Source("f", content)], unit, "strict")
  assert [d.symbols for d in whole(corpus).documents()] == expected


@examples
@given(st.lists(st.text("ab ", max_size=3).map(str.strip)), st.booleans())
def test_ids_are_lines(lines, windows):
  lines = [line.replace(" ", "") for line in lines]
  content = ("\r\n" if windows else "\n").join(f" {s}\t" for s in lines)
  expected = [ids for ids in oracle(content.encode(), "id") if ids]
  corpus = encode_in_memory([Source("f", content.encode())], "id", "strict")
  assert [d.symbols for d in whole(corpus).documents()] == expected


@pytest.mark.parametrize("errors", ["strict", "replace"])
@pytest.mark.parametrize("unit", UNITS)
@examples
@given(st.lists(any_content, min_size=1, max_size=3))
def test_chunks_are_seen_by_nobody(unit, errors, contents):
  expected = encoded(contents, unit, errors)
  for chunk in (1, 2, 3, 7):
    assert encoded(contents, unit, errors, chunk) == expected


@examples
@given(any_content)
def test_wrong_bytes_are_replaced_or_told_with_their_place(content):
  text = content.decode(errors="replace").removeprefix("\ufeff")
  corpus = encode_in_memory([Source("f", content)], "char", "replace")
  assert corpus.text(0, len(corpus.ids)) == text.replace("\r\n", "\n")
  try:
    content.decode()
  except UnicodeDecodeError as error:
    told = encoded([b"fine", content], "char")
    assert told == (
      f"f1: byte {error.start} is not UTF-8; is it a file of text?"
      " data.errors=latin-1 reads each byte as a character,"
      " data.errors=replace puts U+FFFD there"
    )


def test_the_first_mistake_is_told_wherever_chunks_end():
  for chunk in (1, 2, 5, 100):
    told = encoded([b"a\nb c \n\xff"], "id", chunk=chunk)
    assert told.startswith("f0: line 2: 'b c': data.unit=id reads one id")
    told = encoded([b"a\nb c\xff \n"], "id", chunk=chunk)
    assert told.startswith("f0: byte 5 is not UTF-8")


@pytest.mark.parametrize("unit", ["word", "id", "session"])
def test_a_symbol_without_end_is_told_before_it_fills_memory(unit, monkeypatch):
  monkeypatch.setattr(encoding, "_LONGEST", 30)
  text = b"a\n\n" + b"x" * 31 + b" y \xff"
  # It need not end: the one that goes on is refused as soon.
  for content in (text, text.replace(b" y ", b"")):
    for chunk in (1, 7, 100):
      told = encoded([content], unit, chunk=chunk)
      assert told.startswith(f"f0: line 3: {'x' * 20!r}... has more than 30 ch")
  assert encoded([text.replace(b"x" * 31, b"x" * 30)[:-3]], unit)[0]


@pytest.mark.parametrize("count", [255, 256, 257, 65_535, 65_536, 65_537])
def test_ids_are_as_wide_as_they_must(count, monkeypatch):
  codes = np.arange(0x100, 0x100 + count + 0x800)
  codes = codes[(codes < 0xD800) | (codes >= 0xE000)][:count]
  text = "".join(map(chr, codes)) * 2
  content = text.encode()
  for chunk in (10_007, 2**20):
    monkeypatch.setattr(reading, "CHUNK", chunk)
    corpus = encode_in_memory([Source("f", content)], "char", "strict")
    assert corpus.ids.dtype.itemsize == (
      1 if count <= 256 else 2 if count <= 65_536 else 4
    )
    assert np.array_equal(corpus.ids, np.tile(np.arange(count), 2))
    assert corpus.symbols == list(text[:count])


def test_documents_are_named_by_file_and_line():
  corpus = encode_in_memory(
    [
      Source("a", b"\n1 2\n\n3"),
      Source("void", b" \n"),
      Source("b", b"4\n"),
      Source("last", b""),
    ],
    "session",
    "strict",
  )
  assert list(corpus.names) == ["a:2", "a:4", "b:1"]
  assert corpus.groups is corpus.names
  corpus = encode_in_memory(
    [Source("a", b""), Source("b", b"x"), Source("c", b"")], "char", "strict"
  )
  assert list(corpus.names) == ["b"]


@examples
@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=5))
def test_documents_are_collected_as_files_are_read(texts):
  corpus = encode_in_memory(
    [Source(f"f{i}", text.encode()) for i, text in enumerate(texts)],
    "char",
    "strict",
  )
  documents = list(whole(corpus).documents())
  assert plain(collect(documents, "char")) == plain(corpus)


def read(path, while_read=lambda: None):
  for _ in reading.chunks(Source(path.name, path)):
    while_read()


def test_a_file_that_changes_is_not_read(tmp_path):
  path = tmp_path / "log"

  def grow():
    with path.open("a") as file:
      file.write("more")

  def touch():
    os.utime(path, ns=(0, 0))

  for change in (grow, lambda: os.truncate(path, 1), touch):
    path.write_text("text")
    with pytest.raises(UserError, match=r"/log: changed while it was read$"):
      read(path, change)
  path.write_text("text")
  read(path, path.unlink)  # It can be read to its end all the same.
  with pytest.raises(UserError, match=r"/log: cannot be read: No such file"):
    read(path)


@pytest.mark.parametrize("name", ["f.gz", "f.xz"])
def test_a_packed_file_without_a_byte_was_cut(tmp_path, name):
  (tmp_path / name).touch()
  with pytest.raises(UserError, match=rf"/{name}: cannot be read: it is empty"):
    read(tmp_path / name)


def test_a_pipe_and_a_device_are_no_files(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  for path in (tmp_path / "pipe", tmp_path, reading.Path("/dev/zero")):
    with pytest.raises(UserError, match=rf"^{path}: not a regular file$"):
      read(path)


def test_encoding_needs_no_more_for_more():
  # A thousand chunks, of which no more than a few are there at once.
  class Discarded(io.RawIOBase):
    def write(self, data):
      return len(memoryview(data).tobytes())

  import tracemalloc

  def peak(count):
    chunk = ("abcdefg é" * 1000).encode()
    tracemalloc.start()
    encoding.encode(
      [(("f", 0), (chunk for _ in range(count)))],
      "char",
      "strict",
      Discarded(),
      Discarded(),
    )
    _, found = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found

  assert peak(1000) < peak(10) + 10_000
