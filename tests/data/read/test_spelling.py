"""Spelling: lower case and punctuation apart, and the lengths of documents."""

import numpy as np

from seqrnn.configs import base
from seqrnn.data import splits
from seqrnn.data.read import spelling
from seqrnn.data.sources import corpora
from seqrnn.data.sources.corpora import from_text


def config_of(**fields):
  config = base.get_config()
  config.data.source = "files"
  config.data.update(fields)
  return config


SPELLED = {
  "Hello, world!": "hello , world !",
  "don't rock\u2019n\u2019roll 'tis": "don't rock\u2019n\u2019roll ' tis",
  "well-known -- so... -5": "well-known -- so ... - 5",
  "3.14 1,000 12:30. a.b": "3.14 1,000 12:30 . a . b",
  '("Yes") $5 50% ?!': '( " yes " ) $ 5 50 % ? !',
  "a_b \u0938\u0941 \u2014": "a _ b \u0938\u0941 \u2014",
  "One\nTwo.": "one \n two .",
}


def test_punctuation_is_apart():
  data = config_of(unit="word", lowercase=True, punctuation=True).data
  for text, words in SPELLED.items():
    [document] = from_text(text, "word", data)
    assert document.symbols == words.split(" ")
    again = spelling.spelled(document.symbols, data)
    assert again == document.symbols


def test_a_corpus_is_spelled_as_its_documents(tmp_path):
  rng = np.random.default_rng(0)
  words = ["A.", "a", "B,c", "...", "d", "\u0130-x!"]
  texts = [" ".join(rng.choice(words, rng.integers(1, 3))) for _ in range(60)]
  lines = "\n".join(f"{n % 2}\t{text}" for n, text in enumerate(texts))
  (tmp_path / "a.tsv").write_text(lines)
  for unit in ("word", "char"):
    form = {"path": str(tmp_path / "a.tsv"), "format": "tab", "unit": unit}
    spelled = {"lowercase": True, "punctuation": unit == "word"}
    data, plain = config_of(**form, **spelled).data, config_of(**form).data
    corpus = corpora.read_corpus(data)
    lower = [*splits.whole(corpus).documents()]
    read = [*splits.whole(corpora.read_corpus(plain)).documents()]
    expected = [spelling.spelled(d.symbols, data) for d in read]
    assert [d.symbols for d in lower] == expected
    assert [d.name for d in lower] == [d.name for d in read]
    # Texts that are equal afterwards stay together in a split.
    keys = [tuple(document.symbols) for document in lower]
    pairs = {*zip(keys, corpus.groups.tolist(), strict=True)}
    assert len(pairs) == len({*keys}) == len({*corpus.groups.tolist()})
    assert len(pairs) < len(lower)
