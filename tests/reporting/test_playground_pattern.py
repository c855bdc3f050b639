"""Patterns of the playground, against Python's re and by enumeration."""

import itertools
import random
import re
import sys
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.data.vocabulary import (
  BEGIN,
  END,
  PAD,
  RESERVED,
  UNKNOWN,
  Vocabulary,
  joined,
)
from seqrnn.inference import choice
from tests.reporting.test_playground import made, wait

UNITS = {
  "char": (*"abcB1 \n\t.-]\\_", "\u00e9", "\u0663", "\U0001f600"),
  "byte": tuple(map(chr, range(256))),
  "word": ("a", "ab", "b.", "1", "\n", "\u00e9a"),
  "session": ("a", "ab", "E1"),
}
CLASSES = r"\d \D \w \W \s \S \. \n \- \\ \x61 \u00e9 [ab] [^a] [a-c1] [^\n-]"
CLASSES = [*CLASSES.split(), r"[\w.-]", "[]a]", "[^]\\n]", ".", *"abb1 ]}"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  *_, path = made(tmp_path_factory.mktemp("page"), {"model.hidden_size": 2})
  return path.as_uri()


@pytest.fixture
def engine(browser, page):
  """A page that has a model, and so the functions of patterns."""
  browser.get(page)
  return browser.execute_script


def expression(rng, depth=3):
  """A random regular expression."""
  if depth == 0 or rng.random() < 0.3:
    return rng.choice(CLASSES)
  parts = [expression(rng, depth - 1) for _ in range(rng.randint(1, 3))]
  kind = rng.randrange(4)
  if kind == 0:
    return f"({'|'.join([*parts, ''][: rng.randint(1, 4)])})"
  if kind == 1:
    least, more = rng.randint(0, 2), rng.randint(0, 3)
    counts = [*"*+?", f"{{{least}}}", f"{{{least},}}"]
    count = rng.choice([*counts, f"{{{least},{least + more}}}"])
    return f"(?:{''.join(parts)}){count}"
  return "".join(parts)


@pytest.mark.parametrize("unit", UNITS)
def test_it_matches_what_python_matches(engine, unit):
  rng = random.Random(unit)
  symbols = UNITS[unit]
  sources = [expression(rng) for _ in range(40 if unit == "byte" else 200)]
  sources += [f"^{source}$" for source in sources[:9]]
  often = [*"ab1.", "\n"] if unit == "byte" else symbols
  texts = [rng.choices(often, k=rng.randint(0, 5)) for _ in range(60)]
  if unit == "byte":  # Also parts of characters, and surrogates.
    more = ["\u00e9", "\u0663", "\u20ac", "\U0001f600", "a\u00e9", "\ud800"]
    more = [list(x.encode("utf-8", "surrogatepass")) for x in more]
    more += [x[:-1] for x in more] + [[0xC0, 0x81], [0xF5, 0x80, 0x80, 0x80]]
    texts += [list(map(chr, x)) for x in more]
  found = engine(
    """
    const [sources, symbols, unit, texts] = arguments;
    return sources.map((source) => {
      try {
        const { start, after } = automaton(source, symbols, unit);
        return texts.map((text) => text.reduce(after, start)?.distance === 0);
      } catch (fault) {
        if (fault.message.includes("no text")) return texts.map(() => false);
        if (fault.message.includes("states")) return null;
        throw fault;
      }
    });
    """,
    sources,
    symbols,
    unit,
    [[symbols.index(symbol) for symbol in text] for text in texts],
  )
  pairs = [(x, row) for x, row in zip(sources, found, strict=True) if row]
  assert len(pairs) > 0.9 * len(sources)
  assert 0.02 < np.mean([row for _, row in pairs]) < 0.5
  for source, row in pairs:
    for drawn, matches in zip(texts, row, strict=True):
      text = joined(drawn, unit)
      # A part of a character is no character.
      expected = "\ufffd" not in text and bool(re.fullmatch(source, text))
      assert matches == expected, (source, drawn)


def test_its_classes_are_those_of_python(engine):
  x = [x for x in map(chr, range(sys.maxunicode)) if not _unassigned(x)]
  for name in "dws":
    ranges = np.array(engine(f"return rangesOf('{name}')"))
    assert (ranges[1:, 0] > ranges[:-1, 1] + 1).all()
    place = np.searchsorted(ranges[:, 0], list(map(ord, x)), "right") - 1
    inside = (place >= 0) & (list(map(ord, x)) <= ranges[place, 1])
    known = set(re.findall(rf"\{name}", "".join(x)))
    assert {c for c, a in zip(x, inside, strict=True) if a} == known


def _unassigned(x):
  return unicodedata.category(x) in ("Cn", "Co", "Cs")


@pytest.mark.parametrize(
  "unit, symbols", [("char", ["a", "b", "1"]), ("word", ["a", "\n", "1"])]
)
def test_a_dead_end_is_not_entered(engine, unit, symbols):
  rng = random.Random(0)
  words = [
    word for n in range(7) for word in itertools.product(range(3), repeat=n)
  ]
  texts = {word: joined([symbols[i] for i in word], unit) for word in words}
  compared, open_ones = 0, 0
  for source in [expression(rng) for _ in range(40)] + [r"a*|(1\s*1)+a{3}"]:
    matching = [w for w in words if re.fullmatch(source, texts[w])]
    if not matching:
      continue
    found = engine(
      """
      const [source, symbols, unit, words] = arguments;
      const { start, after, open } = automaton(source, symbols, unit);
      return words.map((word) => {
        const place = word.reduce(after, start);
        return place && [0, 1, 2].map((left) => open(place, left));
      });
      """,
      source,
      symbols,
      unit,
      words[: 1 + 3 + 9 + 27],
    )
    for word, rows in zip(words, found, strict=False):
      nearest = [
        min(
          (len(w) for w in matching if w[: len(word) + 1] == (*word, i)),
          default=np.inf,
        )
        for i in range(3)
      ]
      left = np.array(nearest) - len(word) - 1
      expected = [(left <= most).tolist() for most in range(3)]
      assert (rows or [[False] * 3] * 3) == expected, (source, word)
      compared += 9
      open_ones += np.sum(expected)
  assert 100 < open_ones < compared / 2


@pytest.mark.parametrize("boundaries", [True, False])
def test_its_chances(tmp_path, browser, boundaries):
  fields = {"data.boundaries": boundaries, "sample.prime": "e"}
  *_, path = made(tmp_path, fields)
  browser.get(path.as_uri())
  cases = [
    (word, left, temperature, share)
    for word in ("", "a", "ab", "abb")
    for left in (1, 9)
    for temperature in (0, 0.5, 1.5)
    for share in (0.2, 0.6, 0.95, 1)
    if len(word) + left > 2
  ]
  found = browser.execute_script(
    """
    machine = automaton("ab+|a[^b]+c", model.symbols, model.unit);
    return arguments[0].map(([word, left, temperature, share]) => {
      const ids = tokens("e" + word).flatMap((token) => token.ids);
      const carry = ids.reduce(step, start);
      const place = ids.slice(1).reduce(follow, machine.start);
      const how = { place, left, temperature, share };
      return [[...logits(carry)], [...chances(carry, how)]];
    });
    """,
    cases,
  )
  symbols = Vocabulary("char", (*"abcde \n", "\u00fc", "\U0001f600"))
  V = len(symbols)
  rest = "".join(set(symbols.symbols) - {"b"})
  kept = set()
  for (word, left, temperature, share), (logits, p) in zip(
    cases, found, strict=True
  ):
    nearest = {  # What may follow, and the symbols from there to an end.
      "": {"a": 1},
      "a": {"b": 0, **dict.fromkeys(rest, 1)},
      "ab": {"b": 0},
      "abb": {"b": 0},
    }[word]
    inside = np.zeros(V, bool)
    for symbol, distance in nearest.items():
      inside[symbols.encode(symbol)] = distance <= left - 1
    logits = np.array(logits)
    logits[[PAD, BEGIN, UNKNOWN]] = -np.inf
    end = -np.inf
    if "b" in word:
      t = temperature or 1
      outside = logits[len(RESERVED) :][~inside[len(RESERVED) :]]
      outside = np.append(outside, logits[END] if boundaries else -np.inf)
      end = t * np.log(np.exp(outside / t).sum())
    logits = np.where(inside, logits, -np.inf)
    logits[END] = end
    # A symbol is drawn by any noise if it is likely.
    likely_V = choice.choose_likely_symbol(
      jnp.eye(V) * 1e6,
      jnp.tile(jnp.array(logits, jnp.float32), (V, 1)),
      jnp.float32(temperature),
      choice.Limits(V, share),
    ) == jnp.arange(V)
    scaled = np.where(likely_V, logits, -np.inf) / (temperature or 1e-6)
    expected = jax.nn.softmax(scaled - scaled.max())
    np.testing.assert_allclose(p, expected, atol=1e-5)
    kept.add(int(np.sum(np.array(p) > 0)))
  assert len(kept) > 5


PATTERNS = {
  "char": (r"[a-c]+ (\n|de?)*", "a{7}|b*", "(a|b)*a(a|b){3}", r"\W{0,3}."),
  "byte": (
    "\u00e9|\u00eabb",
    r"[a-\u00fc]{2,5}",
    r".{3}\w*",
    "\U0001f600+|e",
    "[^a]{1,4}",
  ),
  "word": ("a( ab)*", r"(a\n?)+ab", r"(\w+ ){3}b\.", r"[^\n]*"),
}


@pytest.mark.parametrize("unit", PATTERNS)
@pytest.mark.parametrize("boundaries", [True, False])
def test_all_its_texts_match(tmp_path, browser, unit, boundaries):
  fields = {"data.unit": unit, "data.boundaries": boundaries}
  symbols = Vocabulary(unit, UNITS[unit])
  made(tmp_path, {**fields, "sample.prime": "a"}, symbols)
  browser.get((tmp_path / "playground.html").as_uri())
  lengths = set()
  for source in PATTERNS[unit]:
    texts = browser.execute_script(
      """
      $("pattern").value = arguments[0];
      compile();
      return Array.from({ length: 20 }, (_, n) => {
        $("temperature").value = n % 3;
        $("text").value = model.prime;
        edited();
        left = machine.start.distance + n % 5 || 1;
        while (!ended) bits.length < written.length ? read() : write();
        return written.slice(first).flatMap((token) => token.ids);
      });
      """,
      source,
    )
    for ids in texts:
      assert re.fullmatch(source, symbols.text(ids)), (source, ids)
      lengths.add(len(ids))
  assert len(lengths) > 4


def test_a_pattern_that_is_typed(tmp_path, browser):
  fields = {"sample.prime": "ab", "sample.top_p": 0.97, "sample.pattern": "e"}
  *_, path = made(tmp_path, fields)
  browser.get(path.as_uri())
  find = lambda name: browser.find_element("id", name)
  assert find("percent").text == "0.97"
  assert "(2 states)" in find("states").text
  find("pattern").send_keys("(dd){2")
  assert "character 6: { begins a count" in find("states").text
  assert find("pattern").get_dom_attribute("aria-invalid") == "true"
  assert not find("write").is_enabled()
  find("pattern").send_keys("}[^ab]{3}")
  assert "(9 states)" in find("states").text
  assert find("pattern").get_dom_attribute("aria-invalid") == "false"

  find("text").send_keys("c")  # Part of the prime.
  wait(browser, "bits.length === 3 && !waiting")
  bars = browser.find_elements("css selector", "#bars button")
  assert [bar.is_displayed() for bar in bars] == [True] + [False] * 9
  assert bars[0].text.split() == ["e", "100.0", "%"]
  bars[0].click()  # The match goes on after its first symbol.
  wait(browser, "bits.length === 4 && !waiting")
  assert bars[0].text.split() == ["d", "100.0", "%"]
  find("write").click()
  wait(browser, "ended && bits.length === written.length && !waiting")
  value = find("text").get_property("value")
  assert re.fullmatch(r"abcedddd[^ab]{3}", value)
  assert "matches the pattern" in find("news").text
  marked = browser.find_elements("css selector", "#colours .first")
  assert [mark.get_property("textContent") for mark in marked] == ["e"]
  find("write").click()  # Another match.
  wait(browser, f"ended && text.length > {len(value)} && !waiting")
  value = find("text").get_property("value")
  assert re.fullmatch(r"abc(edddd[^ab]{3}){2}", value)
  assert browser.get_log("browser") == []


@pytest.mark.parametrize(
  "source, told",
  [
    ("a*?", "character 3: lazy, possessive and double quantifiers"),
    ("a{2}{3}", "character 5: lazy"),
    ("a{,3}", "character 2: { begins a count"),
    ("a{3,2}", "character 6: the counts are in the wrong order"),
    ("+a", "character 1: + has nothing to repeat"),
    ("(?=a)", "only (?: is supported"),
    ("(?P<x>a)", "only (?: is supported"),
    (r"(a)\1", r"character 5: \1 is not supported"),
    (r"a\b", r"\b is not supported"),
    (r"\xg0", r"\x is not supported"),
    ("a^", "character 2: ^ is no anchor here"),
    ("a$|b", "$ is no anchor here"),
    ("(a", "a ) is missing"),
    ("a)", "a ( is missing"),
    ("[a", "a ] is missing"),
    ("a\\", "\\ escapes nothing"),
    ("[b-a]", "the range is in the wrong order"),
    (r"[\d-a]", "the bounds of a range must be characters"),
    ("xyz", "no text of the model's symbols matches it"),
    ("(a|b)*a(a|b){11}", "needs more than 2000 states"),
    ("(a{0,999}b?){0,999}", "needs more than 2000 states"),
    ("a{1001}", "no match has 1000 symbols or fewer"),
  ],
)
def test_other_patterns_are_refused(engine, source, told):
  news, disabled = engine(
    """
    $("pattern").value = arguments[0];
    compile();
    return [$("states").textContent, $("write").disabled];
    """,
    source,
  )
  assert told in news
  assert disabled
