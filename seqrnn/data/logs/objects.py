"""JSON lines of logs: their objects, and the values of keys in them.

A line of OpenTelemetry's may have several records. Their values and attributes
are written as {"stringValue": ...} and as [{"key": ..., "value": ...}, ...].
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

# The keys of the values of OpenTelemetry.
_TYPED = (
  *("stringValue", "intValue", "doubleValue", "boolValue", "bytesValue"),
  *("arrayValue", "kvlistValue"),
)
_ATTRIBUTES = ("attributes", "Attributes", "resource", "Resource", "scope")


_SHARED = 2**12  # Characters of a resource and a scope in the text of a record.


def records(line: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
  """The object of a line, or the log records in it; none: it is no JSON.

  A record has its resource and its scope. So that time is linear, the second of
  the two objects, which is the text of the record, has them only if short.
  """
  try:
    found = json.loads(line)
  except (ValueError, RecursionError):
    return []
  if not isinstance(found, dict):
    return []
  if "resourceLogs" in found:
    return [*_log_records(found)]
  return [(found, found)]


def _log_records(
  fields: dict[str, Any],
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
  for resource in _objects(fields, "resourceLogs"):
    of_resource, short = _shared(resource, "resource")
    for scope in _objects(resource, "scopeLogs"):
      of_scope, its_short = _shared(scope, "scope")
      for record in _objects(scope, "logRecords"):
        yield record | of_resource | of_scope, record | short | its_short


def _shared(fields: dict[str, Any], key: str) -> tuple[dict, dict]:
  """A resource or a scope, with a mapping of attributes; as it is, if short."""
  value, shown = fields.get(key), text(fields, key)
  short = {key: value} if shown and len(shown) <= _SHARED else {}
  if isinstance(value, dict) and "attributes" in value:
    value = value | {"attributes": _mapping(value["attributes"])}
  return {key: value}, short


def _objects(fields: dict[str, Any], key: str) -> list[dict[str, Any]]:
  found = fields.get(key)
  found = found if isinstance(found, list) else []
  return [part for part in found if isinstance(part, dict)]


def text(fields: dict[str, Any], key: str) -> str | None:
  """The value of a key as text; None: there is none, or it is too deep."""
  with suppress(RecursionError):
    value = _plain(fields.get(key))
    if isinstance(value, str) or value is None:
      return value
    if key == "MESSAGE" and isinstance(value, list):  # Not UTF-8, in journald.
      with suppress(TypeError, ValueError):
        return bytes(value).decode("utf-8", "replace")
    return json.dumps(value)
  return None


def found(fields: dict[str, Any], key: str) -> str | None:
  """The value of a key, of a key of a key, or of an attribute, as text."""
  places = [fields, *(fields.get(name) for name in _ATTRIBUTES)]
  for place in places:
    for attributes in (place, _mapping(place).get("attributes")):
      if (value := _inside(_mapping(attributes), key)) is not None:
        return value
  return None


def _inside(fields: dict[str, Any], key: str) -> str | None:
  if (value := text(fields, key)) is not None:
    return value
  for place, letter in enumerate(key):
    if letter == "." and (head := key[:place]) in fields:
      value = _inside(_mapping(fields[head]), key[place + 1 :])
      if value is not None:
        return value
  return None


def _mapping(value: Any) -> dict[str, Any]:
  """An object, or a list of keys and values as one; empty: it is neither."""
  if isinstance(value, list):
    pairs = (pair for pair in value if isinstance(pair, dict))
    return {str(pair.get("key")): pair.get("value") for pair in pairs}
  return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
  """A value without the type that OpenTelemetry writes with it."""
  if not isinstance(value, dict) or len(value) != 1:
    return value
  [(kind, inner)] = value.items()
  if kind not in _TYPED:
    return value
  if isinstance(inner, dict) and "values" in inner:
    inner = inner["values"]
  if kind == "arrayValue" and isinstance(inner, list):
    return [_plain(part) for part in inner]
  if kind == "kvlistValue":
    return {key: _plain(part) for key, part in _mapping(inner).items()}
  return inner
