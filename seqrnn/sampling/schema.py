"""A JSON schema as a regular expression.

outlines-core writes the expression, but ignores keywords that it does not know,
and some that it knows. So a schema may have only keywords whose texts are all
valid. Not all valid JSON is among these texts: properties come in the order of
the schema, and others are not written.
"""

import json
import re
from typing import Any

import numpy as np

from seqrnn.errors import UserError
from seqrnn.runtime import files
from seqrnn.sampling.automaton import PatternError, bounded
from seqrnn.sampling.patterns import byte_table

_BYTES = 2**20  # The largest size of a file.
# Bytes that strings of JSON escape.
_ESCAPED = [*range(32), ord('"'), ord("\\")]
# Keywords that are no rules for a value.
_NOTES = {"title", "description", "default", "examples", "deprecated"} | {
  *("$schema", "$id", "$comment", "$defs", "definitions")
}
_TYPES = "array", "boolean", "integer", "null", "number", "object", "string"
# The keywords of each kind of schema. A kind is a keyword that needs no type
# beside it, or a type.
_KEYWORDS = {
  "$ref": {"$ref"},
  "anyOf": {"anyOf"},
  "const": {"const", "type"},
  "enum": {"enum", "type"},
  **dict.fromkeys(_TYPES, {"type"}),
  "string": {"type", "minLength", "maxLength", "pattern"},
  "array": {"type", "items", "minItems", "maxItems"},
  "object": {"type", "properties", "required", "additionalProperties"},
}


def pattern_of(path: str) -> str:
  """The regular expression of a JSON schema in a file.

  Raises:
    UserError: no such file, no schema, or a keyword that is not supported.
  """
  name = f"config.sample.schema={path!r}"
  try:
    schema = files.read_json(path, _BYTES)
    text = json.dumps(_reduced(schema, "#"), allow_nan=False)
    return bounded("schema", text).decode()
  except OSError as error:
    raise UserError(f"{name}: cannot be read: {error.strerror}") from None
  except (AttributeError, RecursionError, TypeError) as error:
    raise UserError(f"{name}: is no JSON schema: {error}") from None
  except (PatternError, ValueError) as error:
    raise UserError(f"{name}: {error}") from None


def _require(holds: bool, message: str):
  if not holds:
    raise PatternError(message)


def _reduced(schema: Any, place: str) -> dict[str, Any]:
  """A schema that outlines-core reads as it is meant."""
  _require(isinstance(schema, dict), f"{place} must be an object with a type")
  keys = [key for key in ("$ref", "anyOf", "const", "enum") if key in schema]
  kind = keys[0] if keys else schema.get("type")
  _require(
    kind in [*_KEYWORDS],
    f"{place} has type={kind!r}; it must be one of {', '.join(_TYPES)}",
  )
  for key in schema:
    known = key in _NOTES | _KEYWORDS[kind]
    _require(known, f"{place} has {key}, which is not supported there")
  for limit in ("Length", "Items"):
    low = schema.get(f"min{limit}", 0)
    high = schema.get(f"max{limit}", low)
    rule = f"{place} has min{limit} or max{limit}, which must be 0 or more"
    _require({type(low), type(high)} == {int} and 0 <= low <= high, rule)
  if kind == "$ref":
    local = re.fullmatch(r"#/(\$defs|definitions)/[^/~]+", schema[kind])
    _require(
      local is not None, f"{place} has a $ref, which must begin with #/$defs/"
    )
  elif kind in ("anyOf", "enum"):
    some = isinstance(schema[kind], list) and len(schema[kind]) > 0
    _require(some, f"{place} has {kind}, which must be a list of one or more")
  elif "pattern" in schema:
    lengths = {"minLength", "maxLength"} & schema.keys()
    _require(not lengths, f"{place} has a pattern, and so no lengths")
    pattern = schema["pattern"].removeprefix("^")
    pattern = re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", pattern)
    escaped = bool(np.any(byte_table(pattern)[:, _ESCAPED]))
    _require(not escaped, f"{place}/pattern can match what JSON must escape")
    schema = schema | {"pattern": f"(?:{pattern})"}
  elif kind == "array":
    _require("items" in schema, f"{place} is an array, and needs items")
  elif kind == "object":
    _require(
      "properties" in schema
      and not isinstance(schema.get("additionalProperties"), dict),
      f"{place} is an object, and needs properties, and no others",
    )
    for name in [*schema.get("required", []), *schema["properties"]]:
      plain = not {*_ESCAPED} & {*map(ord, name)}
      _require(
        name in schema["properties"] and plain,
        f"{place}: {name!r} is no property, or one JSON must escape",
      )
  return {key: _inner(key, schema[key], place) for key in schema}


def _inner(key: str, value: Any, place: str) -> Any:
  """The value of a keyword, with the schemas in it reduced."""
  if key == "items":
    return _reduced(value, f"{place}/{key}")
  if key == "anyOf":
    return [_reduced(one, f"{place}/{n}") for n, one in enumerate(value)]
  if key in ("properties", "$defs", "definitions"):
    return {n: _reduced(value[n], f"{place}/{key}/{n}") for n in value}
  return value
