"""Labelled and tagged texts: each form is read, or refused in one line."""

import gzip
import lzma
import random
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from seqrnn.data import splits
from seqrnn.data.read import columns, reading
from seqrnn.data.sources import corpora
from seqrnn.errors import UserError
from tests.conftest import tiny

TAGGED = "1\tIn\tin\tADP" + "\t_" * 6
JSON = '{"label": 3, "text": "ab"}\n{"text": "b", "label": "x y", "more": 1}\n'
FOLDERS = {"pos/1.txt": b"good\n", "neg/deep/2.txt": b"bad"}
# Form, files, and the labelled documents or the error.
LABELLED = [
  ("tab", {"f": b"a\tx y\nb\tz\n"}, [("a", "x y"), ("b", "z")]),
  ("tab", {"f": b"a\tx\nb z\n"}, "f:2: has 1 columns; data.format=tab"),
  ("space", {"f": b"0 x y\n1 z"}, [("0", "x y"), ("1", "z")]),
  ("csv", {"f": b'text,id,label\n"a, b\r\nc",1,p\n'}, [("p", "a, b\nc")]),
  ("csv", {"f": b"label,text\nx\n"}, "f:2: needs a text and a label"),
  ("jsonl", {"f": JSON.encode()}, [("3", "ab"), ("x y", "b")]),
  ("jsonl", {"f": b"\n{"}, "f:2: not JSON"),
  ("folders", FOLDERS, [("neg", "bad"), ("pos", "good\n")]),
  ("folders", {"f": b"x"}, "f: lies in no folder"),
  ("files", {"A.txt": b"x\n", "B": b"\nz"}, [("A", "x"), ("B", "z")]),
]


def read(folder, files, **changes):
  for name, content in files.items():
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  fields = {"data.path": str(folder / "data"), **changes}
  return corpora.read_corpus(tiny(folder, fields).data)


def labels(corpus):
  return [corpus.labels.symbols[i] for i in corpus.labels.ids]


def documents(corpus):
  return [corpus.text(*edges) for edges in pairwise(corpus.bounds)]


def check_forms(folder, cases, values, **fields):
  """Reads files of forms; an expected error is the begin of the error."""
  failures = []
  for n, (form, files, expected, *more) in enumerate(cases):
    changes = {**fields, **dict(*more), "data.format": form}
    try:
      corpus = read(folder / str(n), files, **changes)
      result = values(corpus)
    except UserError as error:
      result = str(error).replace(f"{folder}/{n}/data/", "")
      if isinstance(expected, str) and "\n" not in result:
        result = result[: len(expected)]
    if result != expected:
      failures.append((form, files, result, expected))
  assert not failures


def test_forms_of_labels(tmp_path):
  check_forms(
    tmp_path,
    LABELLED,
    lambda corpus: list(zip(labels(corpus), documents(corpus), strict=True)),
  )


PLUS = b"# global.columns = ID FORM NER\n# text = a\n1 a X\n2 # Y\n\n1 c X"
MORE = b"1\ta\tb\tADP\tIN" + b"\t_" * 4 + b"\tM\n"
CONLLU = f"# text = In\n{TAGGED}\n1-2\tx\t_\t_{TAGGED[-12:]}\n\n# \n{TAGGED}\n"


def chosen(word, tag):
  return {"data.text_column": word, "data.label_column": tag}


def beside(pattern):
  return {"data.tags_file": pattern}


# Two texts of words, each with a file of tags.
PAIRS = {"a.words": b"x y\n\nz\n\n", "a.tags": b"X Y\n\nZ"}
PAIRS |= {"b.txt": b"w", "b.tags": b"W\n\n"}
# Form, files, the sentences or the error, and further fields.
SENTENCES = [
  ("columns", {"f": b"a X\nb\tY\n\n\nc X"}, [["aX", "bY"], ["cX"]]),
  ("columns", {"f": b"a X\nb\n"}, "f:2: has 1 columns"),
  ("conllu", {"f": CONLLU.encode()}, [["InADP"], ["InADP"]]),
  # Of a line that has more than two columns, the two that are chosen.
  ("columns", {"f": b"1 a X z\n2 b Y\n"}, [["aX", "bY"]], chosen("2", "3")),
  ("columns", {"f": PLUS}, [["aX", "#Y"], ["cX"]], chosen("FORM", "NER")),
  ("conllu", {"f": b"# x\n" + MORE}, [["aIN"]], chosen(None, "XPOS")),
  ("columns", {"f": PLUS}, "f: data.label_column='POS'", chosen("FORM", "POS")),
  ("parallel", PAIRS, [["xX", "yY"], ["zZ"], ["wW"]], beside("*.tags")),
  (
    "parallel",
    {"a.words": b"x\nx y\n", "a.tags": b"X\nX\n"},
    "a.tags:2: has 1 tag, where a.words:2 has 2 words",
    beside("*.tags"),
  ),
]


def test_forms_of_tags(tmp_path):
  check_forms(tmp_path, SENTENCES, sentences, **{"data.unit": "word"})


def test_sentences_without_a_file_of_tags_are_predicted(tmp_path):
  fields = {"data.format": "parallel", "data.tags_file": "*.tags"}
  data = tiny(tmp_path, {**fields, "data.unit": "word"}).data
  path = tmp_path / "new.words"
  path.write_text("x y\n\nz\n")
  corpus = corpora.read_files("predict.path", str(path), data, ())
  assert corpus.tags is None and list(corpus.names) == [
    "new.words:1",
    "new.words:3",
  ]
  (tmp_path / "new.tags").write_text("X Y\n\nZ\n")
  corpus = corpora.read_files("predict.path", str(path), data, ())
  assert sentences(corpus) == [["xX", "yY"], ["zZ"]]


def sentences(corpus):
  """Each word with its tag."""
  assert corpus.bounds.tolist() == corpus.tags.bounds.tolist()
  return [
    [a + b for a, b in zip(corpus.text(*e), corpus.tags.text(*e), strict=True)]
    for e in pairwise(corpus.bounds)
  ]


def test_what_is_packed_is_read_and_latin_1_too(tmp_path):
  lines = "0 caf\xe9 \x85\n1 b\n".encode("latin-1")
  files = {"a.xz": lzma.compress(lines), "b.gz": gzip.compress(lines)}
  fields = {"data.format": "space", "data.errors": "latin-1"}
  corpus = read(tmp_path, files, **fields)
  assert documents(corpus) == ["caf\xe9 \x85", "b"] * 2


def test_spaces_are_what_is_left_out(tmp_path):
  rng = random.Random(1)
  draw = lambda: "".join(rng.choices("ab \n", k=rng.randint(1, 9)))
  texts = [draw() for _ in range(50)]
  files = {f"{n:02}": text.encode() for n, text in enumerate(texts)}
  corpus = read(tmp_path, files, **{"data.format": "spaces"})
  assert corpus.tags.symbols == ["none", "space"]
  bare = [text for text in texts if text.split()]
  expected = [
    int(text[i + 1 : i + 2].isspace())
    for text in bare
    for i, symbol in enumerate(text)
    if not symbol.isspace()
  ]
  assert documents(corpus) == ["".join(text.split()) for text in bare]
  assert corpus.tags.ids.tolist() == expected
  names = [f"{n:02}" for n, text in enumerate(texts) if text.split()]
  assert list(corpus.names) == names


def test_equal_texts_stay_on_one_side(tmp_path):
  rng = random.Random(2)
  lines = [f"{rng.choice('ab')} {rng.randint(0, 40)}" for _ in range(400)]
  (tmp_path / "f").write_text("\n".join(lines))
  fields = {"data.path": str(tmp_path / "f"), "data.format": "space"}
  config = tiny(tmp_path, fields)
  reader = splits.reader(config)
  sides = [
    {document.symbols for document in reader(name).documents()}
    for name in corpora.SPLITS
  ]
  assert all(sides) and len(set.union(*sides)) == sum(map(len, sides))


# A form, files without labels or with some, and their labelled documents.
FEW = '{"text": "x"}\n{"text": "z", "label": "b"}'
ASKED = [
  ("space", {"f": "x y\nb z\n"}, [("", "x y"), ("b", "z")]),
  ("jsonl", {"f": FEW}, [("", "x"), ("b", "z")]),
  ("folders", {"b/f": "x\ny", "new/f": "z"}, [("b", "x\ny"), ("", "z")]),
  ("files", {"b.txt": "x\ny", "new": "z"}, [("b", "x"), ("b", "y"), ("", "z")]),
]


def test_files_to_predict_need_no_labels(tmp_path):
  for form, files, expected in ASKED:
    folder = tmp_path / form
    for name, content in files.items():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      (folder / name).write_text(content)
    data = tiny(tmp_path, {"data.format": form}).data
    corpus = corpora.read_files("x", str(folder), data, {"a", "b"})
    texts = documents(corpus)
    names = [""] * len(texts) if corpus.labels is None else labels(corpus)
    assert list(zip(names, texts, strict=True)) == expected


def test_packages_are_held_out_by_the_file(tmp_path):
  config = tiny(tmp_path, {"data.source": "packages"})
  reader = splits.reader(config)
  files = {name: reader(name) for name in corpora.SPLITS}
  corpus = files["train"].corpus
  numbers = np.concatenate([pieces.document for pieces in files.values()])
  assert sorted(numbers.tolist()) == list(range(len(corpus.names)))
  for name, label in zip(corpus.names, labels(corpus), strict=True):
    assert name.startswith(f"{label}/")
  assert {"asyncio", "email", "encodings"} <= set(labels(corpus))
  assert corpus.origin.startswith("Python 3.")


def test_names_have_one_language_each(tmp_path):
  pytest.importorskip("faker")
  corpus = corpora.read_corpus(tiny(tmp_path, {"data.source": "names"}).data)
  languages = dict(zip(documents(corpus), labels(corpus), strict=True))
  assert len(languages) == len(corpus.names) > 10_000
  assert languages["Yamamoto"] == "ja" and "Martin" not in languages
  assert corpus.origin.startswith("faker ")


# A unit, what a file of it begins with, and a text of it: some hundred letters.
LARGE = {
  "word": ("label,text\n", 'a,"{}"\n'),
  "session": ("session,event,more\n", "a,b,{}\n"),
}


@pytest.fixture
def peak(tmp_path, monkeypatch):
  """The memory to read a packed file: unit, text, times it is repeated."""
  monkeypatch.setattr(columns, "_SMALL", 2**12)
  monkeypatch.setattr(columns, "_BLOCK", 2**6)
  monkeypatch.setattr(reading, "CHUNK", 2**12)
  path = tmp_path / "data" / "a" / "f.gz"
  path.parent.mkdir(parents=True)

  def peak(unit, text, count):
    head, line = LARGE[unit]
    fields = {"data.format": "csv", "data.unit": unit}
    data = tiny(tmp_path, {"data.path": str(tmp_path / "data"), **fields}).data
    first = "x y " * 100
    with gzip.open(path, "wt") as file:
      file.write(head + line.format(first) + line.format(text) * count)
    tracemalloc.start()
    corpora.read_corpus(data)
    _, size = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size

  return peak


def test_a_corpus_may_be_larger_than_memory(peak):
  for unit in LARGE:
    peak(unit, "x" * 400, 10)  # Imports and caches.
    few, many = (peak(unit, "x" * 400, count) for count in (50, 400))
    assert many - few < 350 * 400 / 3, unit
    # Short rows take little more than an index each.
    few, many = (peak(unit, "x", count) for count in (2000, 6000))
    assert many - few < 4000 * 20, unit
