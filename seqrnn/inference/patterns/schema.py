"""A JSON schema as a regular expression.

All of its texts are valid. Not all valid JSON is among them: properties come in
the order of the schema, others are not written, and a space may follow only a
comma or a colon.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from seqrnn.errors import UserError
from seqrnn.inference.patterns.automaton import PatternError, automaton
from seqrnn.runtime import files

_BYTES = 2**20  # Of a file.
_DEPTH = 3  # Times that a reference is followed within itself.
_ESCAPED = '"\\' + "".join(map(chr, range(32)))  # In strings of JSON.
_CHARACTER = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])'
_INTEGER = "-?(?:0|[1-9][0-9]*)"
_COMMA, _COLON = ", ?", ": ?"
_PLAIN = {
  "boolean": "(?:true|false)",
  "null": "null",
  "integer": _INTEGER,
  "number": rf"{_INTEGER}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,2}})?",
}
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
_NOTES = {"title", "description", "default", "examples", "deprecated"} | {
  *("$schema", "$id", "$comment", "$defs", "definitions")
}
_TYPES: dict[str, tuple[type, ...]] = {
  "string": (str,),
  "integer": (int,),
  "number": (int, float),
  "boolean": (bool,),
  "null": (type(None),),
  "array": (list,),
  "object": (dict,),
}
_WHOLE = "$ref", "const", "enum", "anyOf"  # They need no type beside them.
# The keywords of each kind of schema, besides those that say nothing.
_KEYWORDS = {
  **{name: {name} for name in _WHOLE},
  **{name: {name, "type"} for name in ("const", "enum")},
  **{name: {"type"} for name in _PLAIN},
  "string": {"type", "minLength", "maxLength", "pattern", "format"},
  "array": {"type", "items", "prefixItems", "minItems", "maxItems"},
  "object": {"type", "properties", "required", "additionalProperties"},
}


class _Fault(Exception):
  """What is wrong with a schema, and where."""


def pattern_of(path: str) -> str:
  """The regular expression of a JSON schema in a file.

  Raises:
    UserError: no such file, no schema, or a keyword that is not supported.
  """
  try:
    schema = files.read_json(path, _BYTES)
  except OSError as error:
    raise UserError(
      f"config.sample.schema={path!r}: cannot be read: {error.strerror}"
    ) from None
  try:
    return _Writer(schema).pattern(schema, "#")
  except (_Fault, RecursionError, ValueError) as fault:  # Or NaN.
    where = " (# is the whole schema)" if str(fault).startswith("# ") else ""
    raise UserError(f"config.sample.schema={path!r}: {fault}{where}") from None


class _Writer:
  def __init__(self, root: Any):
    self.root = root
    self.open: list[str] = []  # References that are being followed.

  def pattern(self, schema: Any, place: str) -> str:
    """The expression of a schema."""
    found = self._schema(schema, place)
    if found is None:
      raise _Fault(f"{place} refers to itself without end")
    return found

  def _schema(self, schema: Any, place: str) -> str | None:
    """The expression of a schema; None: it refers to itself too often."""
    if not isinstance(schema, dict):
      raise _Fault(f"{place} must be an object with a type")
    whole = [k for k in _WHOLE if k in schema]
    types = schema.get("type")
    kinds = whole[:1] or (types if isinstance(types, list) else [types])
    kinds = [str(kind) for kind in kinds]
    if not kinds or not all(kind in _KEYWORDS for kind in kinds):
      has = "no type" if types is None else f"type={types!r}"
      raise _Fault(
        f"{place} has {has}, which must be one of"
        f" {', '.join(sorted({*_KEYWORDS} - {*_WHOLE}))}"
      )
    known = _NOTES.union(*(_KEYWORDS[kind] for kind in kinds))
    for keyword in schema:
      if keyword not in known:
        raise _Fault(
          f"{place} has {keyword}, which is not supported for"
          f" {' or '.join(kinds)}"
        )
    return _either(self._of_kind(kind, schema, place) for kind in kinds)

  def _of_kind(self, kind: str, schema: dict, place: str) -> str | None:
    if kind in _PLAIN:
      return _PLAIN[kind]
    makers: dict[str, Callable[[dict, str], str | None]] = {
      "$ref": self._reference,
      "const": lambda *given: _values([schema["const"]], *given),
      "enum": lambda *given: _values(_list(schema, "enum", place), *given),
      "anyOf": self._any_of,
      "string": _string,
      "array": self._array,
      "object": self._object,
    }
    return makers[kind](schema, place)

  def _reference(self, schema: dict, place: str) -> str | None:
    name = schema["$ref"]
    if not isinstance(name, str) or not re.match("#(/|$)", name):
      raise _Fault(f"{place} has $ref={name!r}, which must begin with #/")
    if self.open.count(name) >= _DEPTH:
      return None
    found = self.root
    for part in name.split("/")[1:]:
      part = part.replace("~1", "/").replace("~0", "~")
      if not isinstance(found, dict) or part not in found:
        raise _Fault(f"{place} has $ref={name!r}, which is not there")
      found = found[part]
    self.open.append(name)
    made = self._schema(found, name)
    self.open.pop()
    return made

  def _any_of(self, schema: dict, place: str) -> str | None:
    ways = _list(schema, "anyOf", place)
    return _either(
      self._schema(way, f"{place}/anyOf/{n}") for n, way in enumerate(ways)
    )

  def _array(self, schema: dict, place: str) -> str | None:
    if "prefixItems" in schema:
      if {"items", "minItems", "maxItems"} & {*schema}:
        raise _Fault(f"{place} has prefixItems, which must stand alone")
      parts = [
        self._schema(item, f"{place}/prefixItems/{n}")
        for n, item in enumerate(_list(schema, "prefixItems", place))
      ]
      return (
        None if None in parts else rf"\[{_COMMA.join(filter(None, parts))}\]"
      )
    low, high = _bounds(schema, "Items", place)
    if "items" not in schema:
      raise _Fault(f"{place} is an array, and needs items")
    item = self._schema(schema["items"], f"{place}/items")
    if item is None:
      return None if low else r"\[\]"
    if high == 0:
      return r"\[\]"
    last = "" if high is None else high - 1
    some = rf"{item}(?:{_COMMA}{item}){{{max(low, 1) - 1},{last}}}"
    return rf"\[{some}\]" if low else rf"\[(?:{some})?\]"

  def _object(self, schema: dict, place: str) -> str | None:
    given = schema.get("properties")
    required = schema.get("required", [])
    if given is None:
      if required or not isinstance(schema.get("additionalProperties"), dict):
        raise _Fault(f"{place} is an object, and needs properties")
      where = f"{place}/additionalProperties"
      value = self._schema(schema["additionalProperties"], where)
      if value is None:
        return r"\{\}"
      pair = f'"{_CHARACTER}*"{_COLON}{value}'
      return rf"\{{(?:{pair}(?:{_COMMA}{pair})*)?\}}"
    if not isinstance(given, dict) or not isinstance(required, list):
      raise _Fault(f"{place} has properties or required of another type")
    if missing := [name for name in required if name not in [*given]]:
      raise _Fault(f"{place} requires {missing[0]!r}, which is no property")
    pairs: list[tuple[str, bool]] = []
    for name, value in given.items():
      made = self._schema(value, f"{place}/properties/{name}")
      if made is None and name in required:
        return None
      if made is not None:
        pairs.append((_value(name) + _COLON + made, name in required))
    return rf"\{{{_members(pairs)}\}}"


def _members(pairs: list[tuple[str, bool]]) -> str:
  """Members of an object in their order, some of them required."""
  first = rest = ""  # What may follow no member, or some.
  for pair, required in reversed(pairs):
    first = pair + rest if required else _group(f"{pair}{rest}|{first}")
    more = _COMMA + pair
    rest = (more if required else f"(?:{more})?") + rest
  return first


def _group(pattern: str) -> str:
  return f"(?:{pattern})"


def _either(ways) -> str | None:
  kept = [way for way in ways if way is not None]
  if not kept:
    return None
  return kept[0] if len(kept) == 1 else _group("|".join(kept))


def _value(value: Any) -> str:
  return re.escape(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _values(values: list, schema: dict, place: str) -> str:
  """The values that are of the schema's type, if it has one."""
  types = schema.get("type", [*_TYPES])
  types = types if isinstance(types, list) else [types]
  kinds = [_TYPES[name] for name in map(str, types) if name in _TYPES]
  kept = [
    value for value in values if any(type(value) in kind for kind in kinds)
  ]
  if not kept:
    raise _Fault(f"{place} has no value of its type")
  return _group("|".join(map(_value, kept)))


def _list(schema: dict, name: str, place: str) -> list:
  if not isinstance(schema[name], list) or not schema[name]:
    raise _Fault(f"{place} has {name}, which must be a list that is not empty")
  return schema[name]


def _bounds(schema: dict, name: str, place: str) -> tuple[int, int | None]:
  low, high = schema.get(f"min{name}", 0), schema.get(f"max{name}")
  for value in (low, 0 if high is None else high):
    if type(value) is not int or value < 0:
      raise _Fault(f"{place} has a bound of {value!r}, which must be 0 or more")
  if high is not None and high < low:
    raise _Fault(f"{place} has min{name}={low} above max{name}={high}")
  return low, high


def _string(schema: dict, place: str) -> str:
  if (
    len({"pattern", "format"} & {*schema}) + any("Length" in k for k in schema)
    > 1
  ):
    raise _Fault(f"{place} must have one of pattern, format and lengths")
  if "format" in schema:
    found = _FORMATS.get(str(schema["format"]))
    if found is None:
      raise _Fault(
        f"{place} has format={schema['format']!r}, which must be one of"
        f" {', '.join(_FORMATS)}; write a pattern"
      )
    return f'"{found}"'
  if "pattern" in schema:
    pattern = str(schema["pattern"]).removeprefix("^")
    if re.search(r"(?<!\\)(?:\\\\)*\$$", pattern):
      pattern = pattern[:-1]
    try:
      classes = automaton(pattern, _ESCAPED).classes
    except PatternError as error:
      raise _Fault(f"{place}/pattern: {error}") from None
    unfit = [c for c in _ESCAPED if c in classes]
    if unfit:
      raise _Fault(
        f"{place}/pattern can match {unfit[0]!r}, which JSON must escape"
      )
    return f'"{_group(pattern)}"'
  low, high = _bounds(schema, "Length", place)
  return f'"{_CHARACTER}{{{low},{"" if high is None else high}}}"'
