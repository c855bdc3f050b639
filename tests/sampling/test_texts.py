"""Texts drawn with the settings of config.sample: ends, prompts, choices."""

import json
import re

import pytest

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data import vocabulary
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.modes.sample import write_texts
from seqrnn.sampling import sampler, texts
from tests.conftest import tiny, untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run that was not trained, whose texts differ and have no end."""
  new = untrained(tmp_path_factory.mktemp("texts"), scale=0.4)
  new.params["head"]["bias"][END] = -100
  return new


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
  """All texts are drawn in chunks of one size, by few programs."""
  monkeypatch.setattr(sampler, "_CHUNK", 16)


def drawn(run, prime="", **settings):
  config = run._changed("sample", {"prime": prime, **settings})
  writing = texts.begin(run.experiment, run.params, config)
  return [
    one
    for temperature in config.sample.temperature
    for one in texts.draw(writing, temperature)
  ]


def test_a_stop_text_may_cross_chunks(run):
  whole = run.sample("ab", length=60)[0]
  stop = whole[16:21]  # The first chunk ends within it.
  place = whole.index(stop, 2)
  assert run.sample("ab", length=60, stop=stop) == [whole[:place]]
  [one] = drawn(run, "ab", length=60, stop=[stop, "zz"])
  assert (one.ended, one.text) == ("stop", whole[:place])


def test_repeats_are_not_drawn(run):
  settings = {"temperature": 0, "repetition_penalty": 1.01}
  [one] = drawn(run, "abab", length=800, no_repeat=3, **settings)
  grams = [one.text[n : n + 3] for n in range(len(one.text) - 2)]
  assert len({*grams}) == len(grams) > 20
  # The end, of e**-100, is left.
  last = {one.text[-2:] + s for s in "abcde \n"}
  assert one.ended == "end" and last <= {*grams}
  loop = run.sample("abab", length=60, temperature=0)[0]
  settings["repetition_penalty"] = 9.0
  penalised = run.sample("abab", length=60, **settings)[0]
  assert len({*penalised}) > len({*loop})


def test_a_pattern_holds_for_prompts(run, tmp_path):
  prompts = tmp_path / "primes.txt"
  prompts.write_text("ab\ncde\n")
  settings = {"length": 9, "pattern": "[ab]+", "prompts": str(prompts)}
  first, second = drawn(run, **settings, no_repeat=2)
  assert re.fullmatch("ab[ab]+", first.text)
  assert re.fullmatch("cde[ab]+", second.text)
  bare = run._replace(config=run._changed("data", {"boundaries": False}))
  [one] = drawn(bare, "ab", length=9, pattern="[cd]{3}")
  assert re.fullmatch("ab[cd]{3}", one.text) and one.ended == "end"


def test_prompts_are_continued_together(run, tmp_path, monkeypatch, capsys):
  primes = ["a", "", "abcde abc", "b", "zb"]
  plain, lines = tmp_path / "primes.txt", tmp_path / "primes.jsonl"
  plain.write_text("\n".join(primes) + "\n")
  lines.write_text("\n\n".join(json.dumps({"prime": p}) for p in primes))
  monkeypatch.setattr(texts, "_ROWS", 2)
  every = drawn(run, length=20, temperature=0, prompts=str(plain))
  assert [one.prime for one in every] == primes
  for one in every[:3]:
    assert [one.text] == run.sample(one.prime, length=20, temperature=0)
  assert "sample.prompts: read as unknown: 'z'" in capsys.readouterr().err
  settings = {"temperature": 0, "length": 20}
  again = run.sample(prompts=str(lines), **settings)
  assert again == [one.text for one in every]
  twice = tmp_path / "twice.txt"
  twice.write_text("a\n" * 5)
  assert (
    len({*run.sample(prompts=str(twice), length=20)}) == 5
  )  # Groups of two have draws of their own.


def test_json_lines_say_how_each_text_was_made(run, tmp_path):
  prompts = tmp_path / "primes.txt"
  prompts.write_text("ab\r\nb")
  given = {"length": 5, "seed": 3, "temperature": (0.5, 1.0)}
  shown = {}
  for how in ("text", "jsonl"):
    config = run._changed(
      "sample", {**given, "prompts": str(prompts), "format": how}
    )
    writing = texts.begin(run.experiment, run.params, config)
    made = write_texts(writing, tmp_path, shown.setdefault(how, []).append)
    content = (tmp_path / "samples.jsonl").read_text()
  assert "".join(shown["jsonl"]) == content
  assert shown["text"][0] == "----- temperature 0.5\n"
  assert shown["text"][1].startswith("----- prompt 1")
  rows = [json.loads(line) for line in content.splitlines()]
  assert [row["text"] for row in rows] == made
  assert [row["prime"] for row in rows] == ["ab", "b"] * 2
  assert [row["temperature"] for row in rows] == [0.5, 0.5, 1, 1]
  for row in rows:
    assert (row["seed"], row["ended"]) == (3, "length")


def test_settings_that_are_refused(run, tmp_path):
  path, lines = tmp_path / "primes.txt", tmp_path / "primes.jsonl"
  with pytest.raises(UserError, match=f"^{path}: cannot be read: No such file"):
    run.sample(prompts=str(path))
  path.write_bytes(b"a\xff\n")
  with pytest.raises(UserError, match=f"^{path}: byte 1 is not UTF-8"):
    run.sample(prompts=str(path))
  lines.write_text('{"prime": "a"}\n{"prime": 1}\n')
  with pytest.raises(UserError, match=":2: prime: must be a text in a JSON"):
    run.sample(prompts=str(lines))
  for settings, rule in (
    ({"stop": ["a", ""]}, "none of them empty"),
    ({"stop": "a", "pattern": "b"}, "a match ends by itself"),
    ({"prompts": "x", "prime": "a"}, "set one of the two"),
  ):
    with pytest.raises(UserError, match=rule):
      run.sample(**settings)


def test_primes():
  symbols = Vocabulary("char", ("a", "b", "c"))
  data = base.get_config().data
  ids, unknown = texts.prime_ids(symbols, "abz", data, 0)
  assert ids.tolist() == [BEGIN, 4, 5, UNKNOWN] and unknown == ["z"]
  assert texts.prime_ids(symbols, "", data, 0)[0].tolist() == [BEGIN]
  rule = r"^config\.sample\.prime='a\\nb': has 2 s"
  with pytest.raises(UserError, match=rule):
    texts.prime_ids(Vocabulary("session", ("a", "b")), "a\nb", data, 0)
  data.update(boundaries=False, lowercase=True)
  ids, unknown = texts.prime_ids(symbols, "aB", data, 0)
  assert ids.tolist() == [4, 5] and not unknown
  firsts = [texts.prime_ids(symbols, "", data, n)[0][0] for n in range(50)]
  assert set(firsts) == {4, 5, 6}


ONE = "ob done!\nA second line.\nThe third one.\n" * 9


def test_a_model_of_one_document_begins_at_a_line(tmp_path):
  for fields, content, begin in (
    ({}, ONE, "\n"),
    ({"data.boundaries": False}, ONE, "\n"),
    ({"data.unit": "word"}, ONE.replace("\n", " "), ""),
  ):
    (tmp_path / "one").write_text(content)
    fields = {"data.path": str(tmp_path / "one"), "sample.length": 9, **fields}
    config = tiny(tmp_path, {**fields, "sample.streams": 3})
    new = experiments.build(config, None)
    path = tmp_path / "vocabulary.json"
    path.write_bytes(vocabulary.encoded(new.vocabularies))
    (tmp_path / "one").unlink()  # Samples need no corpus.
    experiment = experiments.build(config, vocabulary.load(path))
    symbols = experiment.vocabularies["symbols"]
    writing = texts.begin(experiment, None, config)
    firsts = {symbols.names(row)[-1] for row in writing.rows}
    sizes = [ids.size for ids in writing.shown]
    if begin:
      assert firsts == set(symbols.names(symbols.encode([begin])))
      assert sizes == [0, 0, 0]
    else:  # Any symbol begins a word.
      assert firsts <= set(symbols.symbols) and len(firsts) > 1
      assert sizes == [1, 1, 1]
    config.sample.prime = "The"
    primed = texts.begin(experiment, None, config)
    assert symbols.text(primed.shown[0]) == "The"
    bare = not config.data.boundaries
    start = [] if bare else symbols.encode([begin]) if begin else [BEGIN]
    assert primed.rows[0].tolist() == [*start, *primed.shown[0]]
