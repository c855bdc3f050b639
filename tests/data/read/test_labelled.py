"""Labelled texts: each form read right, or told in one line; splits."""

import gzip
import json
import lzma
import random
import tracemalloc

import numpy as np
import pytest

from seqrnn.data import splits
from seqrnn.data.read import columns, labelled, reading
from seqrnn.data.sources import corpora
from seqrnn.errors import UserError
from tests.conftest import tiny

TAGGED = "1\tIn\tin\tADP" + "\t_" * 6
JSON = '{"label": 3, "text": "ab"}\n{"text": "b", "label": "x y", "more": 1}\n'
# Name of the form, files, and the labelled documents or the line that is told.
LABELLED = {
  "tab": ("tab", {"f": b"a\tx y\nb\tz\n"}, [("a", "x y"), ("b", "z")]),
  "tab, more columns": ("tab", {"f": b"1\t_\tx\n\n0\t_\ty\r\n"}, "1x0y"),
  "tab, none": ("tab", {"f": b"a\tx\nb z\n"}, "f:2: has no tab"),
  "tab, one more": ("tab", {"f": b"a\tx\nb\ty\tz"}, "f:2: has 3 columns"),
  "tab, no text": ("tab", {"f": b"a\t \n"}, "f:1: its text is empty"),
  "tab, no label": ("tab", {"f": b"\tx\n"}, "f:1: its label is empty"),
  "space": ("space", {"f": b"0 x y\n1 z"}, [("0", "x y"), ("1", "z")]),
  "space, no text": ("space", {"f": b"0 x\n\n1\n"}, "f:3: its text is empty"),
  "csv": ("csv", {"f": b'text,id,label\n"a, b\nc",1,p\n'}, [("p", "a, b\nc")]),
  "csv, other header": (
    "csv",
    {"f": b"a,b\n1,2\n"},
    "f:2: has no label in fie",
  ),
  "csv, short": ("csv", {"f": b"label,text\nx\n"}, "f:2: has no text in field"),
  "csv, long": ("csv", {"f": b"label,text\nx,y,z\n"}, "f:2: has more columns"),
  "csv, open": ("csv", {"f": b'label,text\nx,"y\n'}, "f:2: unexpected end"),
  "jsonl": ("jsonl", {"f": JSON.encode()}, [("3", "ab"), ("x y", "b")]),
  "jsonl, broken": ("jsonl", {"f": b"{}\n{"}, "f:1: has no label in field"),
  "jsonl, no JSON": ("jsonl", {"f": b"\n{"}, "f:2: not JSON"),
  "jsonl, a list": ("jsonl", {"f": b"[1]"}, "f:1: must be a JSON object"),
  "jsonl, half a pair": (
    "jsonl",
    {"f": b'{"label": "a", "text": "\\ud800"}'},
    "f:1: byte 0 is not UTF-8",
  ),
  "folders": (
    "folders",
    {"pos/1.txt": b"good\n", "neg/deep/2.txt": b"bad"},
    [("neg", "bad"), ("pos", "good\n")],
  ),
  "folders, none": ("folders", {"f": b"x"}, "f: lies in no folder"),
  "folders, empty": ("folders", {"a/f": b"\n"}, "a/f: its text is empty"),
  "files": ("files", {"A.txt": b"x\ny\n", "B": b"\nz"}, "AxAyBz"),
}


def told(error, folder) -> str:
  """A message, with paths relative to the data."""
  return str(error).replace(f"{folder}/data/", "")


def read(folder, files, **changes):
  for name, content in files.items():
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  fields = {"data.path": str(folder / "data"), **changes}
  return corpora.read(tiny(folder, fields).data)


def labels(corpus):
  return [corpus.labels.symbols[i] for i in corpus.labels.ids]


def documents(corpus):
  return [
    corpus.text(*corpus.bounds[j : j + 2]) for j in range(len(corpus.names))
  ]


@pytest.mark.parametrize("name", LABELLED)
def test_a_form_of_labels(tmp_path, name):
  form, files, expected = LABELLED[name]
  try:
    corpus = read(tmp_path, files, **{"data.format": form})
    found = list(zip(labels(corpus), documents(corpus), strict=True))
  except UserError as error:
    found = told(error, tmp_path)
    assert "\n" not in found and len(found) > 20
  if isinstance(found, list) and isinstance(expected, str):
    found = "".join(map("".join, found))
  assert found[: len(expected)] == expected


# Form, content, and the sentences or the line that is told.
SENTENCES = {
  "columns": ("columns", "a X\nb\tY\n\n\nc X", [["aX", "bY"], ["cX"]]),
  "columns, one": ("columns", "a X\nb\n", "f:2: has 1 columns"),
  "columns, three": ("columns", "a X 1\n", "f:1: has 3 columns"),
  "conllu": (
    "conllu",
    f"# text = In\n{TAGGED}\n1-2\tx\t_\t_{TAGGED[-12:]}\n\n# \n{TAGGED}\n",
    [["InADP"], ["InADP"]],
  ),
  "conllu, no number": (
    "conllu",
    f"{TAGGED}\nx{TAGGED[1:]}\n",
    "f:2: begins with 'x'; a line of CoNLL-U begins with",
  ),
  "conllu, no tabs": ("conllu", "1 In in ADP\n", "f:1: has 1 columns; CoNLL-U"),
  "conllu, no tag": ("conllu", "1\tIn\t_\t" + "\t_" * 6, "f:1: has 10 columns"),
}


PLUS = "# global.columns = ID FORM NER\n# text = a\n1 a X\n2 # Y\n\n1 c X"
MORE = "1\ta\tb\tADP\tIN" + "\t_" * 4 + "\tM\n"
# Of a line that has more than two columns, the two that are chosen.
CHOSEN = {
  "by number": ("columns", "2", "3", "1 a X z\n2 b Y\n", [["aX", "bY"]]),
  "only the tag": ("columns", None, "2", "a X y z\n", [["aX"]]),
  "only the word": ("columns", "2", None, "X a y Z\n", [["aZ"]]),
  "from the end": ("columns", "1", "-1", "a p X\nb Y\n", [["aX", "bY"]]),
  "by name": ("columns", "FORM", "NER", PLUS, [["aX", "#Y"], ["cX"]]),
  "CoNLL-U": ("conllu", None, "XPOS", f"# x\n{MORE}", [["aIN"]]),
  "CoNLL-U by number": ("conllu", "3", "10", MORE, [["bM"]]),
  "no such name": (
    *("columns", "FORM", "POS", PLUS),
    "f: data.label_column='POS': columns are ID, FORM, NER",
  ),
  "no names": (
    *("columns", "1", "POS", "a X\n"),
    "f: data.label_column='POS': its columns have no names, as a first line",
  ),
  "too few": (
    "columns",
    "2",
    "4",
    "1 a b X\n1 a X\n",
    "f:2: has 3 columns, to",
  ),
  "only a word": (
    "columns",
    "1",
    "-1",
    "a X\nb\n",
    "f:2: has 1 columns, too f",
  ),
  "CoNLL-U, too few": (
    "conllu",
    "11",
    None,
    MORE,
    "f:1: has 10 columns; CoNLL",
  ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_columns_are_chosen(tmp_path, name):
  form, word, tag, content, expected = CHOSEN[name]
  fields = {"data.text_column": word, "data.label_column": tag}
  fields |= {"data.format": form, "data.unit": "word"}
  try:
    corpus = read(tmp_path, {"f": content.encode()}, **fields)
  except UserError as error:
    assert told(error, tmp_path).startswith(expected)
    return
  assert sentences(corpus) == expected
  # Files without tags are read to predict.
  (tmp_path / "g").write_text("a\n\nb\n")
  data = tiny(tmp_path, fields).data
  if form == "columns" and word is None:
    path = str(tmp_path / "g")
    found = corpora.read_files("predict.path", path, data, ())
    assert found.tags is None and found.symbols == ["a", "b"]


# Of parallel files: content by name, and the sentences or the line.
PARALLEL = {
  "literal": (
    "seq.out",
    {"a/seq.in": "x y\n\nz\n", "a/seq.out": "X Y\n\nZ\n", "b/seq.in": "w"},
    "b/seq.out: no such file; data.tags_file='seq.out' names the tags of b/seq",
  ),
  "all of a folder": (
    "*.tags",
    {
      "a.words": "x y\n\nz\n",
      "a.tags": "X Y\n\nZ",
      "b.txt": "w",
      "b.tags": "W",
    },
    [["xX", "yY"], ["zZ"], ["wW"]],
  ),
  "a tag too few": (
    "*.tags",
    {"a.words": "x\nx y\n", "a.tags": "X\nX\n"},
    "a.words:2 has 2 words",
  ),
  "no tag": (
    "*.tags",
    {"a.words": "x\ny\n", "a.tags": "X\n \n"},
    "a.tags:2: has 0 tags, where ",
  ),
  "blank lines too many": (
    "*.tags",
    {"a.words": "x\n\n\n", "a.tags": "X\n", "b.words": "y", "b.tags": "Y\n\n"},
    [["xX"], ["yY"]],
  ),
  "a line too few": (
    "*.tags",
    {"a.words": "x\n\ny\n", "a.tags": "X\n"},
    "a.tags: has no line 3, as ",
  ),
  "a line too many": (
    "*.tags",
    {"a.words": "x\n", "a.tags": "X\nY Z\n"},
    "a.words: has no line 2, as ",
  ),
}


@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_files(tmp_path, name):
  tags_file, contents, expected = PARALLEL[name]
  fields = {"data.format": "parallel", "data.tags_file": tags_file}
  fields["data.unit"] = "word"
  contents = {file: text.encode() for file, text in contents.items()}
  try:
    corpus = read(tmp_path, contents, **fields)
  except UserError as error:
    assert expected in told(error, tmp_path) and "\n" not in str(error)
    return
  assert sentences(corpus) == expected


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
  assert corpus.tags is not None
  edges = zip(corpus.bounds[:-1], corpus.bounds[1:], strict=True)
  return [
    [a + b for a, b in zip(corpus.text(*e), corpus.tags.text(*e), strict=True)]
    for e in edges
  ]


@pytest.mark.parametrize("name", SENTENCES)
def test_a_form_of_tags(tmp_path, name):
  form, content, expected = SENTENCES[name]
  fields = {"data.format": form, "data.unit": "word"}
  try:
    corpus = read(tmp_path, {"f": content.encode()}, **fields)
  except UserError as error:
    assert told(error, tmp_path).startswith(expected)
    return
  tags = [corpus.tags.symbols[i] for i in corpus.tags.ids]
  tagged = [
    word + tag for word, tag in zip(corpus.text(0, None), tags, strict=True)
  ]
  bounds = corpus.bounds.tolist()
  assert bounds == corpus.tags.bounds.tolist()
  cut = zip(bounds[:-1], bounds[1:], strict=True)
  assert [tagged[a:b] for a, b in cut] == expected


@pytest.mark.parametrize(
  ("changes", "rule"),
  [
    ({"data.format": "tab", "data.unit": "id"}, "data.unit='id': a labelled"),
    ({"data.format": "conllu"}, "data.unit='char': data.format=conllu has"),
    ({"data.format": "spaces", "data.unit": "word"}, "data.unit='word': data."),
    (
      {"data.format": "csv", "data.source": "stdlib", "data.path": None},
      "data.format='csv': is read with data.source=files only",
    ),
  ],
)
def test_settings_that_do_not_go_together(tmp_path, changes, rule):
  with pytest.raises(UserError, match=rule):
    read(tmp_path, {"f": b"a b\n"}, **changes)


def test_what_is_packed_is_read_and_latin_1_too(tmp_path):
  lines = "0 caf\xe9 \x85\n1 b\n".encode("latin-1")
  files = {"a.xz": lzma.compress(lines), "b.gz": gzip.compress(lines)}
  fields = {"data.format": "space", "data.errors": "latin-1"}
  corpus = read(tmp_path, files, **fields)
  assert documents(corpus) == ["caf\xe9 \x85", "b"] * 2
  for name, content in files.items():
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}: cannot be read: .*"):
      read(tmp_path / name, {name: content[:-9]}, **fields)


def test_spaces_are_what_is_left_out(tmp_path):
  rng = random.Random(1)
  texts = [
    "".join(rng.choices("ab \n", k=rng.randint(1, 9))) for _ in range(50)
  ]
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
  config = tiny(
    tmp_path, {"data.path": str(tmp_path / "f"), "data.format": "space"}
  )
  reader = splits.reader(config)
  sides = [
    {document.symbols for document in reader(name).documents()}
    for name in corpora.SPLITS
  ]
  assert all(sides) and len(set.union(*sides)) == sum(map(len, sides))


# A form, files without labels or with some, and what is read of them.
ASKED = {
  "tab": ({"f": "x y\nb\tz\n"}, [("", "x y"), ("b", "z")]),
  "space": ({"f": "x y\nb z\n"}, [("", "x y"), ("b", "z")]),
  "csv": ({"f": "text,more\nx,1\n"}, [("", "x")]),
  "jsonl": ({"f": '{"text": "x"}\n{"text": "z", "label": "b"}'}, "xbz"),
  "folders": ({"b/f": "x\ny", "new/f": "z"}, [("b", "x\ny"), ("", "z")]),
  "files": ({"b.txt": "x\ny", "new": "z"}, "bxbyz"),
  "text": ({"f": "x y\nb\tz\n"}, [("", "x y"), ("", "b\tz")]),
}


@pytest.mark.parametrize("form", ASKED)
def test_what_is_asked_about_need_not_be_labelled(tmp_path, form):
  files, expected = ASKED[form]
  for name, content in files.items():
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
  data = tiny(tmp_path, {"data.format": form}).data
  corpus = corpora.read_files("x", str(tmp_path / "data"), data, {"a", "b"})
  found = documents(corpus)
  own = [""] * len(found) if corpus.labels is None else labels(corpus)
  found = list(zip(own, found, strict=True))
  if isinstance(expected, str):
    found = "".join(map("".join, found))
  assert found == expected


def test_a_table_of_events_is_asked_about_by_its_sessions(tmp_path):
  (tmp_path / "f").write_text("session,event\nx,a\ny,b\nx,c d\n")
  fields = {"data.unit": "session", "data.format": "csv"}
  data = tiny(tmp_path, fields).data
  corpus = corpora.read_files("x", str(tmp_path / "f"), data)
  assert list(corpus.names) == ["x", "y"]
  assert documents(corpus) == [["a", "c d"], ["b"]]


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
  corpus = corpora.read(tiny(tmp_path, {"data.source": "names"}).data)
  found = dict(zip(documents(corpus), labels(corpus), strict=True))
  assert len(found) == len(corpus.names) > 10_000
  assert found["Yamamoto"] == "ja" and "Martin" not in found
  assert corpus.origin.startswith("faker ")


def test_json_is_what_json_writes(tmp_path):
  rows = [{"l": n % 3 == 0, "t": f"é{n}\n"} for n in range(9)]
  lines = "\n".join(map(json.dumps, rows))
  fields = {"data.format": "jsonl", "data.label_column": "l"}
  corpus = read(
    tmp_path, {"f": lines.encode()}, **fields, **{"data.text_column": "t"}
  )
  assert labels(corpus) == [json.dumps(row["l"]) for row in rows]
  assert documents(corpus) == [row["t"] for row in rows]


# A form, what a file of it begins with, and a text of it: some hundred letters.
LARGE = {
  "tab": ("", "a\t{}\n"),
  "space": ("", "a {}\n"),
  "csv": ("label,text\n", 'a,"{}"\n'),
  "jsonl": ("", '{{"label": "a", "text": "{}"}}\n'),
  "files": ("", "{}\n"),
  "folders": ("", "{} "),
  "columns": ("", "{} A\n\n"),
  "table": ("session,event,more\n", "a,b,{}\n"),
}


@pytest.fixture
def peak(tmp_path, monkeypatch):
  """The memory to read a packed file: form, text, times it is repeated."""
  monkeypatch.setattr(columns, "SMALL", 2**12)
  monkeypatch.setattr(columns, "_HELD", 2**6)
  monkeypatch.setattr(reading, "CHUNK", 2**12)
  path = tmp_path / "data" / "a" / "f.gz"
  path.parent.mkdir(parents=True)

  def peak(form, text, count):
    head, line = LARGE[form]
    fields = {"data.format": form, "data.unit": "word"}
    if form == "table":
      fields = {"data.format": "csv", "data.unit": "session"}
    data = tiny(tmp_path, {"data.path": str(tmp_path / "data"), **fields}).data
    first = "x y " * 100 if form != "columns" else "x" * 400
    with gzip.open(path, "wt") as file:
      file.write(head + line.format(first) + line.format(text) * count)
    tracemalloc.start()
    corpora.read(data)
    _, found = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found

  return peak


@pytest.mark.parametrize("form", LARGE)
def test_what_is_packed_takes_no_memory_as_a_whole(peak, form):
  peak(form, "x" * 400, 10)  # What is imported or cached at first.
  few, many = (peak(form, "x" * 400, count) for count in (100, 2000))
  assert many - few < 1900 * 400 / 3


@pytest.mark.parametrize("form", sorted({*LARGE} - {"folders"}))
def test_short_rows_take_little_more_than_an_index_each(peak, form):
  peak(form, "x", 10)
  few, many = (peak(form, "x", count) for count in (1000, 9000))
  assert many - few < 8000 * 20


@pytest.mark.parametrize(
  ("limit", "form", "rule"),
  [
    (
      (labelled, "TEXTS"),
      "csv",
      "f:5: a corpus of labelled texts has at most 3 texts",
    ),
    ((reading, "LINES"), "csv", "f: line 4: a file has at most 3 lines"),
    ((reading, "LINES"), "columns", "f: line 4: a file has at most 3 lines"),
  ],
)
def test_more_rows_than_a_limit_are_refused(
  tmp_path, monkeypatch, limit, form, rule
):
  monkeypatch.setattr(*limit, 3)
  head, line = LARGE[form]
  content = {"f": (head + line.format("x") * 4).encode()}
  with pytest.raises(UserError, match=f"/data/{rule}$"):
    read(tmp_path, content, **{"data.format": form, "data.unit": "word"})


@pytest.mark.parametrize("form", ["tab", "csv", "jsonl"])
def test_a_text_without_an_end_is_refused(tmp_path, monkeypatch, form):
  monkeypatch.setattr(reading, "LONGEST", 1000)
  monkeypatch.setattr(reading, "CHUNK", 100)
  head, line = LARGE[form]
  content = (head + line.format("x" * 1200)).encode()
  with pytest.raises(
    UserError, match=r"/data/f.*(more than 1000 ch|field larger)"
  ):
    read(tmp_path, {"f": content}, **{"data.format": form})


def test_memory_that_ends_names_what_is_read(tmp_path, monkeypatch):
  def fail(*_):
    raise MemoryError

  monkeypatch.setitem(labelled._FORMS, "jsonl", fail)
  with pytest.raises(UserError, match=r"^data\.path='.*/data': .* memory"):
    read(tmp_path, {"f": b"x"}, **{"data.format": "jsonl"})
