"""JSON schemas as patterns: what they write is valid, and what is refused."""

import json
import random
import re

import pytest

from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.sampling.patterns import schema
from seqrnn.sampling.patterns.table import END, ENDED, START, compile_pattern

jsonschema = pytest.importorskip("jsonschema")
SYMBOLS = Vocabulary("char", tuple(map(chr, [*range(9, 127), 233])))
NESTED = {
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "title": "A person",
  "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 4},
    "age": {"type": ["integer", "null"]},
    "tags": {
      "type": "array",
      "items": {"enum": ['a"b', "\u00e9", 1.5, None, [1, {"x": 2}]]},
      "minItems": 1,
      "maxItems": 3,
    },
    "pair": {
      "type": "array",
      "prefixItems": [{"type": "boolean"}, {"const": "x", "type": "string"}],
    },
    "name of a friend": {"$ref": "#/properties/name"},
  },
  "required": ["age", "tags"],
}
MAP = {
  "$defs": {
    "value": {
      "anyOf": [
        {"type": "number"},
        {"type": "string", "pattern": "^[a-c]{2}|x$"},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "date-time"},
        {"type": "array", "items": {"$ref": "#/$defs/few"}, "maxItems": 2},
      ]
    },
    "few": {"type": ["string", "boolean"], "maxLength": 2},
  },
  "type": "object",
  "additionalProperties": {"$ref": "#/$defs/value"},
}


def write(tmp_path, content):
  path = tmp_path / "schema.json"
  path.write_text(json.dumps(content), "utf-8")
  return str(path)


def walk(table, rng, length):
  """A random match: any allowed symbol with the same probability."""
  state, text = START, ""
  while True:
    left = length - len(text)
    ways = (table.need_SV[state] < left).nonzero()[0]
    if not left or not len(ways):
      return text
    symbol = int(rng.choice(ways))
    state = table.next_SV[state, symbol]
    if symbol == END:
      assert state == ENDED
      return text
    text += SYMBOLS.text([symbol])


@pytest.mark.parametrize("content", [NESTED, MAP])
def test_all_texts_are_valid(tmp_path, content):
  pattern = schema.pattern_of(write(tmp_path, content))
  table = compile_pattern(pattern, SYMBOLS, 80)
  checker = jsonschema.FormatChecker()
  made = jsonschema.Draft202012Validator(content, format_checker=checker)
  rng = random.Random(3)
  found = [walk(table, rng, 80) for _ in range(300)]
  for text in found:
    assert re.fullmatch(pattern, text)
    made.validate(json.loads(text))
  assert len(set(found)) > 100
  if content is NESTED:
    values = [json.loads(text) for text in found]
    for name in NESTED["properties"]:
      assert any(name in value for value in values), name


def nested(depth):
  inner = {"type": "null"}
  return {"type": "array", "items": nested(depth - 1)} if depth else inner


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ([], "# must be an object with a type"),
    ({}, "# has no type, which must be one of array, boolean, integer"),
    (
      {"type": "integer", "minimum": 3},
      "# has minimum, which is not supported",
    ),
    ({"type": "object"}, "# is an object, and needs properties"),
    ({"$ref": "#"}, "# has $ref='#', which leads to itself"),
    ({"$ref": "#/a"}, "# has $ref='#/a', which is not there"),
    (
      {"$ref": "b.json"},
      "# has $ref='b.json', which must be a text from #/ on",
    ),
    ({"type": "integer", "enum": ["1", 1.5]}, "# has no value of its type"),
    ({"enum": []}, "# has enum=[], which must be a list that is not empty"),
    (
      {"type": "array", "items": {"type": "string", "pattern": "a.*"}},
      "#/items/pattern can match '\\x00', which JSON must escape",
    ),
    ({"type": "string", "pattern": "(?=a)"}, "#/pattern: it has a look-around"),
    (
      {"type": "string", "pattern": "a", "maxLength": 2},
      "# must have one of pattern, format and lengths",
    ),
    ({"type": "string", "minLength": -1}, "# has minLength=-1, which must be"),
    (
      {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 2},
      "# has prefixItems, which must stand alone",
    ),
    (
      {"type": "object", "properties": {"a\n": {"type": "null"}}},
      "# has the property 'a\\n', which JSON escapes",
    ),
    ({"const": 2**70}, "# has the number 1180591620717411303424, which is"),
    (nested(40), "its automaton needs more than 10,000 states"),
    ({"type": "string", "format": "email"}, "# has format='email', which must"),
    (
      {"type": "object", "properties": {}, "required": ["a"]},
      "# requires 'a', which is no property",
    ),
    (
      {"type": "string", "minLength": 3, "maxLength": 2},
      "# has minLength=3 above maxLength=2",
    ),
  ],
)
def test_what_is_refused(tmp_path, content, message):
  path = write(tmp_path, content)
  with pytest.raises(UserError) as caught:
    schema.pattern_of(path)
  assert str(caught.value).startswith(
    f"config.sample.schema={path!r}: {message}"
  )


def test_no_file(tmp_path):
  with pytest.raises(UserError, match="cannot be read: No such file"):
    schema.pattern_of(str(tmp_path / "none.json"))
