"""Labelled and tagged texts: each form is read, or refused in one line."""

import gzip
import lzma
import random
from itertools import pairwise

import pytest

from seqrnn.data.sources import corpora
from seqrnn.errors import UserError
from tests.conftest import tiny

TAGGED = "1\tIn\tin\tADP" + "\t_" * 6
JSON = '{"label": 3, "text": "ab"}\n{"text": "b", "label": "x y", "more": 1}\n'
FOLDERS = {"pos/1.txt": b"good\n", "neg/deep/2.txt": b"bad"}
ASKED = {"known": {"a", "b"}}
# Form, files, and the labelled documents or the error.
LABELLED = [
  ("tab", {"f": b"a\tx y\nb\tz\n"}, [("a", "x y"), ("b", "z")]),
  ("tab", {"f": b"a\tx\nb z\n"}, "f:2: has no column '1', only '-1'"),
  ("space", {"f": b"0 x y\n1 z"}, [("0", "x y"), ("1", "z")]),
  ("csv", {"f": b'text;id;label\n"a; b\r\nc";1;p\n;;\n'}, [("p", "a; b\nc")]),
  ("csv", {"f": b"label,text\nx\n"}, "f:2: the column 'text' is"),
  ("csv", {"f": b"label,text\rx,y\r"}, "f:1: a carriage return ends no line"),
  ("jsonl", {"f": JSON.encode()}, [("3", "ab"), ("x y", "b")]),
  ("jsonl", {"f": b"\n{"}, "f:2: not JSON"),
  ("folders", FOLDERS, [("neg", "bad"), ("pos", "good\n")]),
  ("folders", {"f": b"x"}, "f: has no label"),
  ("files", {"A.txt": b"x\n", "B": b"\nz"}, [("A", "x"), ("B", "z")]),
  # To predict, with the labels a and b.
  ("tab", {"f": b"x y\nc\tz\n"}, [("", "x y"), ("c", "z")], ASKED),
  ("space", {"f": b"x y\nb z\n"}, [("", "x y"), ("b", "z")], ASKED),
  ("jsonl", {"f": b'{"text": "x", "label": null}'}, [("", "x")], ASKED),
  ("folders", {"b/f": b"x\ny", "c/f": b"z"}, [("b", "x\ny"), ("", "z")], ASKED),
  ("files", {"b.txt": b"x", "c": b"z"}, [("b", "x"), ("", "z")], ASKED),
]


def read(folder, files, known=None, **changes):
  for name, content in files.items():
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  path = str(folder / "data")
  data = tiny(folder, {"data.path": path, **changes}).data
  return corpora.read_files("data.path", path, data, known)


def labels(corpus):
  if corpus.labels is None:
    return [""] * len(corpus.names)
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
  ("conllu", {"f": b"# x\n" + MORE}, [["aIN"]], chosen(None, "XPOS")),
  ("columns", {"f": b"a X"}, "data.text_column, data.l", chosen("1", "POS")),
  ("parallel", PAIRS, [["xX", "yY"], ["zZ"], ["wW"]], beside("*.tags")),
  (
    "parallel",
    {"a.words": b"x\nx y\n", "a.tags": b"X\nX\n"},
    "a.tags:2: has 1 tag, where a.words:2 has 2 words",
    beside("*.tags"),
  ),
  ("parallel", {"new": b"x y\n"}, None, beside("*.tags") | {"known": ()}),
]


def test_forms_of_tags(tmp_path):
  check_forms(tmp_path, SENTENCES, sentences, **{"data.unit": "word"})


def sentences(corpus):
  """Each word with its tag; None if there are none."""
  if corpus.tags is None:
    return None
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


def test_a_long_line_is_read_whole(tmp_path):
  """Only a log has a limit that its lines may exceed."""
  words, tags = ["word"] * 20_000, ["T"] * 20_000
  long, pair = "x" * 70_000, (" ".join(words), " ".join(tags))
  files = {"a.words": pair[0].encode(), "a.tags": pair[1].encode()}
  for n, (form, contents, expected) in enumerate(
    (
      ("parallel", files, ["wordT"] * 20_000),
      ("columns", {"f": f"{long} T\n".encode()}, [f"{long}T"]),
      ("conllu", {"f": TAGGED.replace("In", long).encode()}, [f"{long}ADP"]),
    )
  ):
    fields = {"data.unit": "word", "data.format": form, **beside("*.tags")}
    [sentence] = sentences(read(tmp_path / str(n), contents, **fields))
    assert sentence == expected, form


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


def test_names_have_one_language_each(tmp_path):
  pytest.importorskip("faker")
  corpus = corpora.read_corpus(tiny(tmp_path, {"data.source": "names"}).data)
  languages = dict(zip(documents(corpus), labels(corpus), strict=True))
  assert len(languages) == len(corpus.names) > 10_000
  assert languages["Yamamoto"] == "ja" and "Martin" not in languages
  assert corpus.origin.startswith("faker ")
