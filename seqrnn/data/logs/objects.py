"""JSON lines of logs: their objects, and the values of keys in them.

A line of OpenTelemetry's may have several records. Their values and attributes
are written as {"stringValue": ...} and as [{"key": ..., "value": ...}, ...].
"""

import json
from contextlib import suppress
from typing import Any

SHARED = ("resource", "scope")  # By the records of a line.
_ATTRIBUTES = ("attributes", "Attributes", "Resource", *SHARED)


def records(line: str) -> list[dict[str, Any]]:
  """The object of a line, or the log records in it; none: it is no JSON.

  A record has its resource and its scope.
  """
  try:
    value = json.loads(line)
    value = _plain(value) if 'Value"' in line else value
  except (ValueError, RecursionError):
    return []
  if not isinstance(value, dict):
    return []
  if "resourceLogs" not in value:
    return [value]
  return [
    record | {"resource": resource.get("resource"), "scope": scope.get("scope")}
    for resource in _objects(value["resourceLogs"])
    for scope in _objects(resource.get("scopeLogs"))
    for record in _objects(scope.get("logRecords"))
  ]


def _objects(value: Any) -> list[dict[str, Any]]:
  return (
    [x for x in value if isinstance(x, dict)] if type(value) is list else []
  )


def _plain(value: Any) -> Any:
  """A value without the types and the lists of keys of OpenTelemetry."""
  if isinstance(value, list):
    values = list(map(_plain, value))
    is_map = values and all(isinstance(x, dict) and "key" in x for x in values)
    return {str(x["key"]): x.get("value") for x in values} if is_map else values
  if not isinstance(value, dict):
    return value
  if len(value) == 1:
    [(kind, inner)] = value.items()
    if kind in ("arrayValue", "kvlistValue") and isinstance(inner, dict):
      return _plain(inner.get("values"))
    if kind.endswith("Value"):
      return _plain(inner)
  return {key: _plain(inner) for key, inner in value.items()}


def text(fields: dict[str, Any], key: str) -> str | None:
  """The value of a key as text; None: there is none, or it is too deep."""
  value = fields.get(key)
  if isinstance(value, str) or value is None:
    return value
  if key == "MESSAGE" and isinstance(value, list):  # Not UTF-8, in journald.
    with suppress(TypeError, ValueError):
      return bytes(value).decode("utf-8", "replace")
  with suppress(RecursionError):
    return json.dumps(value)
  return None


def lookup(fields: dict[str, Any], key: str) -> str | None:
  """The value of a key, of a key of a key, or of an attribute, as text."""
  for name in ("", *_ATTRIBUTES):
    inner = fields.get(name) if name else fields
    for values in (inner, _mapping(inner).get("attributes")):
      if (value := _inside(_mapping(values), key)) is not None:
        return value
  return None


def _mapping(value: Any) -> dict[str, Any]:
  return value if isinstance(value, dict) else {}


def _inside(fields: dict[str, Any], key: str) -> str | None:
  if (value := text(fields, key)) is not None:
    return value
  for place, letter in enumerate(key):
    if letter == "." and (head := key[:place]) in fields:
      value = _inside(_mapping(fields[head]), key[place + 1 :])
      if value is not None:
        return value
  return None
