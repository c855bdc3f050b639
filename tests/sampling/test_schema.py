"""JSON schemas as patterns: valid texts, and keywords that are refused."""

import json
import random
import re

import pytest

from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.sampling import schema
from seqrnn.sampling.patterns import END, ENDED, START, compile_pattern
from tests.conftest import message_of

jsonschema = pytest.importorskip("jsonschema")
SYMBOLS = Vocabulary("char", tuple(map(chr, [*range(9, 127), 233])))
SCHEMA = {
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$defs": {"few": {"type": "string", "maxLength": 2}},
  "type": "object",
  "title": "A person",
  "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 4},
    "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "tags": {
      "type": "array",
      "items": {"enum": ['a"b', "\u00e9", 1.5, None, [1, {"x": 2}]]},
      "minItems": 1,
      "maxItems": 2,
    },
    "few": {"$ref": "#/$defs/few"},
    "map": {
      "type": "object",
      "properties": {
        "x": {"type": "number"},
        "y": {"type": "string", "pattern": "^[a-c]{2}|x$"},
        "z": {"const": True},
      },
    },
  },
  "required": ["age", "tags"],
}


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


def test_all_texts_are_valid(tmp_path):
  (tmp_path / "a.json").write_text(json.dumps(SCHEMA), "utf-8")
  pattern = schema.pattern_of(str(tmp_path / "a.json"))
  table = compile_pattern(pattern, SYMBOLS)
  checker, rng = jsonschema.Draft202012Validator(SCHEMA), random.Random(3)
  walked = [walk(table, rng, 99) for _ in range(150)]
  for text in walked:
    assert re.fullmatch(pattern, text)
    checker.validate(json.loads(text))
  assert len(set(walked)) > 50
  values = [json.loads(text) for text in walked]
  for name in SCHEMA["properties"]:
    assert any(name in value for value in values), name


REFUSED = [
  ({}, "# has type=None; it must be one of array, boolean, integer"),
  ({"type": "integer", "minimum": 3}, "# has minimum, which is not supported"),
  ({"$ref": "b.json"}, "# has a $ref, which must begin with #/$defs/"),
  ({"type": "string", "pattern": "a.*"}, "#/pattern can match what JSON must"),
  ({"type": "string", "pattern": 5}, "is no JSON schema: "),
  ({"type": "array", "minItems": 2}, "# is an array, and needs items"),
  ({"type": ["null"]}, "# has type=['null']; it must be one of array"),
  ({"type": "object", "properties": {}, "required": ["a"]}, "#: 'a' is no pr"),
]


def test_schemas_that_are_refused(tmp_path):
  path = tmp_path / "schema.json"
  with pytest.raises(UserError, match="cannot be read: No such file"):
    schema.pattern_of(str(path))
  for content, message in REFUSED:
    path.write_text(json.dumps(content), "utf-8")
    line = message_of(schema.pattern_of, str(path))
    start = f"config.sample.schema={str(path)!r}: {message}"
    assert line.startswith(start), content
