"""Corpora: their files, the order of documents, and refusals."""

import dis
import sysconfig

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.configs import base
from seqrnn.data import splits
from seqrnn.data.documents import Document, digest
from seqrnn.data.read.encoding import encode
from seqrnn.data.read.reading import Source
from seqrnn.data.sources import corpora, embedded
from seqrnn.data.sources.corpora import from_text
from tests.conftest import message_of


def fields(**overrides):
  data = base.get_config().data
  data.source = "files"
  data.update(overrides)
  return data


def read(data, split=None):
  return list(splits.whole(corpora.read_corpus(data, split)).documents())


@pytest.fixture
def folder(tmp_path):
  """Files in folders, made in no order; two that are hidden, one empty."""
  files = {
    "b.txt": "bee",
    "a/z.txt": "zed",
    ".hidden": "no",
    "a/b/c.txt": "sea",
    "a.txt": "ay",
    ".git/config": "no",
    "empty.txt": "",
  }
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  return tmp_path


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_on_the_command_line_is_read_as_a_file_is(text):
  for unit in ("char", "byte", "word", "id", "session"):
    if unit == "id":
      text = "\n".join(text.split())
    corpus = encode([Source("text", text.encode())], unit, "strict")
    assert from_text(text, unit) == list(splits.whole(corpus).documents())


def test_a_folder_is_read_whole_in_order_of_names(folder):
  documents = read(fields(path=str(folder)))
  contents = {"a.txt": "ay", "a/b/c.txt": "sea", "a/z.txt": "zed"}
  contents["b.txt"] = "bee"
  assert documents == [Document(*item) for item in contents.items()]


def test_a_glob_names_files_from_its_first_wildcard_on(folder, monkeypatch):
  names = [d.name for d in read(fields(path=f"{folder}/*/**/*.txt"))]
  assert names == ["a/b/c.txt", "a/z.txt"]
  names = [d.name for d in read(fields(path=f"{folder}/a/[a-z]*"))]
  assert names == ["z.txt"]  # a/b is a folder.
  monkeypatch.chdir(folder)
  assert [d.name for d in read(fields(path="?.txt"))] == ["a.txt", "b.txt"]


MISTAKES = [
  ({"path": "none.txt"}, "data.path='none.txt': no such file"),
  ({"path": "a\0b"}, r"data.path='a\x00b': no such file"),
  ({"path": "a/void"}, "data.path='a/void': no file in this folder"),
  ({"path": "loop"}, "loop: cannot be read: Too many levels of symbolic links"),
  ({"path": "empty.txt"}, "data.path='empty.txt': is empty, it has no symbols"),
  ({"path": "long", "unit": "word"}, f"long: '{'x' * 20}'... has more than 65"),
  ({}, "data.path=None: data.source=files needs data.path, or data."),
  ({"source": "stdlib", "format": "csv"}, "data.format='csv': data.source='st"),
  ({"source": "chords"}, "data.source='chords': is music, which only task='po"),
]


def test_each_mistake_has_one_line(folder, monkeypatch):
  monkeypatch.chdir(folder)
  (folder / "a" / "void").mkdir()
  (folder / "loop").symlink_to("loop")
  (folder / "long").write_text("a b\n" + "x" * 2**20)
  for overrides, message in MISTAKES:
    assert message in message_of(read, fields(**overrides))


@pytest.fixture
def library(tmp_path, monkeypatch):
  """A standard library of two modules and a package."""

  def forget():
    embedded.stdlib.cache_clear()
    embedded.opcodes.cache_clear()

  (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\r\nname = '\xe9'\r\n")
  (tmp_path / "code.py").write_text(
    "class Shape:\n"
    "  def area(self):\n"
    "    assert self\n"
    "    return [(lambda: x)() for x in self]\n"
    "total = sum(n for n in '\\d')\n"  # An invalid escape warns.
  )
  (tmp_path / "package").mkdir()
  (tmp_path / "package" / "inner.py").write_text("x = 1")
  monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
  forget()
  yield tmp_path
  forget()


def test_the_library_is_its_top_modules_each_in_its_own_encoding(library):
  documents = read(fields(source="stdlib"))
  assert [d.name for d in documents] == ["code.py", "latin.py"]
  assert documents[1].symbols == "# coding: latin-1\nname = 'é'\n"
  documents = read(fields(source="stdlib", unit="byte"))
  content = (library / "latin.py").read_bytes()
  assert documents[1].symbols.encode("latin-1") == content


def test_opcodes_are_those_of_every_code_object(library):
  documents = read(fields(source="opcodes", unit="session"))
  names = [d.name for d in documents]
  assert names[:3] == [
    f"code:{n}" for n in ("<module>:1", "Shape:1", "Shape.area:2")
  ]
  assert any(name.endswith("<lambda>:4") for name in names)
  assert "code:<genexpr>:5" in names
  assert names[-1] == "latin:<module>:1"
  data = fields(source="opcodes", unit="session")
  groups = corpora.read_corpus(data).groups.tolist()
  assert groups == [groups[0]] * (len(names) - 1) + [digest(b"latin")]
  assert "LOAD_ASSERTION_ERROR" in documents[2].symbols  # As without -O.
  latin = compile((library / "latin.py").read_bytes(), "latin", "exec")
  opcodes = [step.opname for step in dis.get_instructions(latin)]
  assert documents[-1].symbols == opcodes
