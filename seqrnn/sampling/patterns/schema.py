"""A JSON schema as a regular expression.

outlines-core writes the expression, but it ignores keywords that it does not
know, and some that it knows. So a schema is first checked and reduced to
keywords whose texts are all valid. Not all valid JSON is among these texts:
properties come in the order of the schema, and others are not written.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from seqrnn.errors import UserError
from seqrnn.runtime import files
from seqrnn.sampling.patterns import bounded
from seqrnn.sampling.patterns.bounded import PatternError
from seqrnn.sampling.patterns.expression import Expression

_BYTES = 2**20  # Of a file.
_PARTS = 10_000  # Of a schema whose references are replaced, at most.
_ESCAPED = "".join(map(chr, range(32))) + '"\\'  # In strings of JSON.
# outlines-core has other dates and times, some of which are not valid.
_DATE = (
  "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
  "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
_FORMATS = {
  "date": _DATE,
  "time": _TIME,
  "date-time": f"{_DATE}T{_TIME}",
  "uuid": "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
}
# They are no rules for a value.
_NOTES = {"title", "description", "default", "examples", "deprecated"} | {
  *("$schema", "$id", "$comment", "$defs", "definitions")
}
_TYPES: dict[str, tuple[type, ...]] = {
  "array": (list,),
  "boolean": (bool,),
  "integer": (int,),
  "null": (type(None),),
  "number": (int, float),
  "object": (dict,),
  "string": (str,),
}
# The keywords of each kind of schema. A kind is a keyword that needs no type
# beside it, or a type.
_KEYWORDS = {
  "$ref": {"$ref"},
  "anyOf": {"anyOf"},
  "const": {"const", "type"},
  "enum": {"enum", "type"},
  **dict.fromkeys(_TYPES, {"type"}),
  "string": {"type", "minLength", "maxLength", "pattern", "format"},
  "array": {"type", "items", "prefixItems", "minItems", "maxItems"},
  "object": {"type", "properties", "required", "additionalProperties"},
}
_LIST = lambda value: isinstance(value, list) and value
_COUNT = lambda value: type(value) is int and value >= 0
_LISTS = "anyOf", "enum", "prefixItems"
_COUNTS = "minLength", "maxLength", "minItems", "maxItems"
_RULES: dict[str, tuple[Callable, str]] = {
  **dict.fromkeys(_LISTS, (_LIST, "a list that is not empty")),
  **dict.fromkeys(_COUNTS, (_COUNT, "a number of 0 or more")),
  "$ref": (lambda name: re.match("#(/|$)", str(name)), "a text from #/ on"),
  "properties": (lambda value: isinstance(value, dict), "an object"),
  "required": (lambda value: isinstance(value, list), "a list"),
}


class _Fault(Exception):
  """A fault of a schema, and its place."""


def pattern_of(path: str) -> str:
  """The regular expression of a JSON schema in a file.

  Raises:
    UserError: no such file, no schema, or a keyword that is not supported.
  """
  name = f"config.sample.schema={path!r}"
  try:
    schema = files.read_json(path, _BYTES)
  except OSError as error:
    raise UserError(f"{name}: cannot be read: {error.strerror}") from None
  try:
    reduced = json.dumps(_Reduced(schema).schema(schema, "#"), allow_nan=False)
    return bounded.run("schema", reduced).decode()
  except (_Fault, PatternError, RecursionError, ValueError) as fault:  # Or NaN.
    where = " (# is the whole schema)" if str(fault).startswith("# ") else ""
    raise UserError(f"{name}: {fault}{where}") from None


class _Reduced:
  """Schemas of the keywords that outlines-core reads as they are meant."""

  def __init__(self, root: Any):
    self.root = root
    self.parts = 0
    self.open: list[str] = []  # References that are being followed.

  def schema(self, schema: Any, place: str) -> dict:
    """A schema, reduced."""
    self.parts += 1
    if self.parts > _PARTS:
      raise _Fault(f"{place} is one of more than {_PARTS:,} schemas")
    if not isinstance(schema, dict):
      raise _Fault(f"{place} must be an object with a type")
    schema = {name: schema[name] for name in schema if name not in _NOTES}
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    kinds = [k for k in _KEYWORDS if k in schema and k not in _TYPES][:1]
    kinds = kinds or [*map(str, listed)]
    if not kinds or not {*kinds} <= {*_KEYWORDS}:
      has = "no type" if types is None else f"type={types!r}"
      raise _Fault(
        f"{place} has {has}, which must be one of {', '.join(_TYPES)}"
      )
    known = set().union(*(_KEYWORDS[kind] for kind in kinds))
    for name, value in schema.items():
      if name not in known:
        raise _Fault(
          f"{place} has {name}, which is not supported for {' or '.join(kinds)}"
        )
      fits, rule = _RULES.get(name, (lambda _: True, ""))
      if not fits(value):
        raise _Fault(f"{place} has {name}={value!r}, which must be {rule}")
    ways = [self._of_kind(kind, schema, place) for kind in kinds]
    return ways[0] if len(ways) == 1 else {"anyOf": ways}

  def _of_kind(self, kind: str, schema: dict, place: str) -> dict:
    if kind == "$ref":
      return self._target(schema["$ref"], place)
    if kind == "anyOf":
      return {"anyOf": self._each(schema["anyOf"], f"{place}/anyOf")}
    if kind in ("const", "enum"):
      values = schema["enum"] if kind == "enum" else [schema["const"]]
      return {"enum": _of_type(values, schema.get("type", [*_TYPES]), place)}
    reduced = {k: schema[k] for k in schema if k in _KEYWORDS[kind]}
    reduced["type"] = kind
    for name in ("Length", "Items"):
      low = reduced.get(f"min{name}", 0)
      high = reduced.get(f"max{name}", low)
      if high < low:
        raise _Fault(f"{place} has min{name}={low} above max{name}={high}")
    if kind == "string":
      return _string(reduced, place)
    if kind == "array":
      return self._array(reduced, place)
    if kind == "object":
      return self._object(reduced, place)
    return reduced

  def _each(self, schemas: list, place: str) -> list[dict]:
    return [self.schema(one, f"{place}/{n}") for n, one in enumerate(schemas)]

  def _target(self, name: str, place: str) -> dict:
    if name in self.open:
      raise _Fault(f"{place} has $ref={name!r}, which leads to itself")
    target = self.root
    for part in name.split("/")[1:]:
      part = part.replace("~1", "/").replace("~0", "~")
      if not isinstance(target, dict) or part not in target:
        raise _Fault(f"{place} has $ref={name!r}, which is not there")
      target = target[part]
    self.open.append(name)
    reduced = self.schema(target, name)
    self.open.pop()
    return reduced

  def _array(self, schema: dict, place: str) -> dict:
    if "prefixItems" in schema:
      if len(schema) > 2:
        raise _Fault(f"{place} has prefixItems, which must stand alone")
      items = self._each(schema["prefixItems"], f"{place}/prefixItems")
      return schema | {"prefixItems": items}
    if "items" not in schema:
      raise _Fault(f"{place} is an array, and needs items")
    return schema | {"items": self.schema(schema["items"], f"{place}/items")}

  def _object(self, schema: dict, place: str) -> dict:
    required = schema.get("required", [])
    more = schema.pop("additionalProperties", None)
    if "properties" not in schema:
      if required or not isinstance(more, dict):
        raise _Fault(f"{place} is an object, and needs properties")
      more = self.schema(more, f"{place}/additionalProperties")
      return {"type": "object", "additionalProperties": more}
    properties = {}
    for name, value in schema["properties"].items():
      if {*name} & {*_ESCAPED}:
        raise _Fault(f"{place} has the property {name!r}, which JSON escapes")
      properties[name] = self.schema(value, f"{place}/properties/{name}")
    for name in required:
      if name not in [*properties]:
        raise _Fault(f"{place} requires {name!r}, which is no property")
    return schema | {"properties": properties}


def _of_type(values: list, types: Any, place: str) -> list:
  types = map(str, types if isinstance(types, list) else [types])
  classes = {one for name in types for one in _TYPES.get(name, ())}
  values = [value for value in values if type(value) in classes]
  if not values:
    raise _Fault(f"{place} has no value of its type")
  if large := re.search(r"\d{19,}", json.dumps(values)):
    raise _Fault(f"{place} has the number {large[0]}, which is too large")
  return values


def _string(schema: dict, place: str) -> dict:
  if len({re.sub("^(min|max)", "", name) for name in schema} - {"type"}) > 1:
    raise _Fault(f"{place} must have one of pattern, format and lengths")
  pattern = schema.get("pattern")
  if "format" in schema:
    pattern = _FORMATS.get(str(schema["format"]))
    if pattern is None:
      raise _Fault(
        f"{place} has format={schema['format']!r}, which must be one of"
        f" {', '.join(_FORMATS)}; write a pattern"
      )
  if pattern is None:
    return schema
  pattern = str(pattern).removeprefix("^")
  if re.search(r"(?<!\\)(?:\\\\)*\$$", pattern):
    pattern = pattern[:-1]
  try:
    unfit = Expression(pattern, _ESCAPED).used
  except PatternError as error:
    raise _Fault(f"{place}/pattern: {error}") from None
  if unfit:
    raise _Fault(
      f"{place}/pattern can match {min(unfit)!r}, which JSON must escape"
    )
  return {"type": "string", "pattern": f"(?:{pattern})"}
