"""Rules for the value of one field; combinations.py has those of several."""

import contextlib
import json
import re
from collections.abc import Callable, Sequence

from seqrnn.config.field import Rule

_LARGEST = (2 - 2**-23) * 2.0**127  # The largest float32.
SECRETS = "<secrets>"  # In detect.redact, the built-in patterns.
_BAD_PATTERN = re.error, TypeError, OverflowError, RecursionError


class Registered(Sequence[str]):
  """A sequence of names that is computed at each use.

  A config can thus refer to names that a module registers, without importing
  that module before they are needed.
  """

  def __init__(self, names: Callable[[], list[str]]):
    self._names = names

  def __getitem__(self, index: int) -> str:
    return self._names()[index]

  def __len__(self) -> int:
    return len(self._names())


def one_of(names: Sequence[str], more: str = "") -> Rule:
  """Returns the rule of a value that is one of these names; `more` ends it."""
  return Rule(str, lambda value: value in names, more, names)


def integer(low: int, high: int, words: str = "") -> Rule:
  """Returns the rule of an integer from low to high; words name the range."""
  words = words or f"{low} to {high}"
  return Rule(int, lambda v: low <= v <= high, f"must be from {words}")


def number(
  holds: Callable[[float], bool], words: str, default: float | None = None
) -> Rule:
  """Returns the rule of a number that float32 can hold, with a condition."""
  in_range = lambda v: abs(v) <= _LARGEST and holds(v)
  return Rule(float, in_range, f"must be {words}", default=default)


def of_text(holds: Callable[[str], object], text: str) -> Rule:
  """Returns the rule of a text with a condition, which may raise ValueError."""

  def check(value: str) -> bool:
    with contextlib.suppress(ValueError, *_BAD_PATTERN):
      return bool(holds(value))
    return False

  return Rule(str, check, text)


def session_cut(text: str) -> tuple[str, str | float]:
  """Returns how `data.log_session` cuts a log, and the value.

  Raises:
    ValueError: it is none of the four forms.
  """
  with contextlib.suppress(*_BAD_PATTERN):
    if re.compile(text).groups == 1:
      return "pattern", text
  kind, _, value = text.partition("=")
  if kind == "key" and value:
    return kind, value
  if kind == "lines" and COUNT.holds(int(value)):
    return kind, int(value)
  if kind == "gap" and POSITIVE.holds(float(value)):
    return kind, float(value)
  raise ValueError


def keys_of_json(text: str) -> dict[str, str]:
  """Returns the keys that `data.log_keys` names, by message, time and level."""
  pairs = (part.partition("=") for part in text.split(",") if part)
  return {name.strip(): key.strip() for name, _, key in pairs}


def parse_stops(value: str) -> list[str]:
  """Returns the texts of a JSON list; any other value is one text."""
  with contextlib.suppress(ValueError, RecursionError):
    stops = json.loads(value, strict=False)  # Also with a newline itself.
    if isinstance(stops, list):
      return stops
  return [value]


def own_masks(pattern: str) -> list[str]:
  """Returns the alternatives of `detect.redact` that are not <secrets>."""
  parts = re.split(rf"(?:^|\|)(?:{SECRETS}(?:\||\Z))+", pattern)
  return [part for part in parts if part]


def _is_header(text: str) -> bool:
  fields = re.findall(r"<(\w+)>", text)
  good = all(name.isidentifier() for name in fields)
  return good and "Content" in fields and len(set(fields)) == len(fields)


def _are_keys(text: str) -> bool:
  keys = keys_of_json(text)
  known = {"message", "time", "level"}
  return keys != {} and keys.keys() <= known and all(keys.values())


def _is_address(text: str) -> bool:
  form = re.fullmatch(r"(?:.+:)?([0-9]{1,5})", text)
  return form is not None and int(form[1]) < 2**16


def _is_temperature(value: float) -> bool:
  # Logits, divided by a number below or above, may be infinite or all zero.
  good = type(value) in (int, float)
  return good and (value == 0 or 1e-30 <= value <= 1e30)


def _is_weight(value: float) -> bool:
  return type(value) in (int, float) and 0 <= value <= 1e30


def _are_stops(text: str) -> bool:
  stops = parse_stops(text)
  broken = text.startswith('["') and stops == [text]  # A list, but not JSON.
  return (
    bool(stops and all(stops)) and not broken and {*map(type, stops)} <= {str}
  )


TEXT = Rule(str, lambda _: True, "must be a text")
NOT_EMPTY = Rule(str, bool, "must not be empty")
SWITCH = Rule(bool, lambda _: True, "must be true or false", default=False)
FINITE = number(lambda _: True, "a finite number")
POSITIVE = number(lambda v: v > 0, "above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "at least 0")
SHARE = number(lambda v: 0 <= v < 1, "from 0 to below 1", default=0.0)
ABOVE_0 = number(lambda v: 0 < v <= 1, "above 0 and at most 1")
BETWEEN_0_1 = number(lambda v: 0 < v < 1, "above 0, below 1")
PENALTY = number(lambda v: 0.01 <= v <= 100, "from 0.01 to 100")
COUNT = integer(1, 2**31 - 1, "1 to 2**31 - 1")
NATURAL = integer(0, 2**31 - 1, "0 to 2**31 - 1")
SIZE = integer(1, 2**24, "1 to 2**24")
ROWS = integer(1, 2**16, "1 to 2**16")
SEED = integer(0, 2**32 - 1, "0 to 2**32 - 1")
SPLIT = one_of(("train", "validation", "test"))
COLUMN = of_text(
  lambda v: v.strip("-0"),
  "must be the number of a column, from 1 or -1, or its name",
)
# Fields that `train.fit_to_data` may change.
FITTED_FIELDS = (
  *("train.batch_size", "train.batches_per_epoch", "train.epochs"),
  *("model.hidden_size", "model.dropout", "model.weight_drop"),
  *("model.symbol_dropout", "train.label_smoothing"),
  *("train.choice", "train.refit", "data.window", "model.pooling"),
  *("data.lowercase", "data.punctuation", "model.wide", "model.parts"),
)
FITTED = of_text(
  lambda v: {part.strip() for part in v.split(",")} <= {"all", *FITTED_FIELDS},
  f"must be all, or some of {', '.join(FITTED_FIELDS)}, separated by commas",
)
HEADER = of_text(
  _is_header,
  "must have <Content>, and no field twice, as in '<Date> <Time> <Content>'",
)
CUT = of_text(
  session_cut,
  "must be a regular expression with one group, gap=SECONDS, lines=NUMBER or"
  " key=KEY",
)
KEYS = of_text(_are_keys, "must be as message=KEY,time=KEY,level=KEY")
LISTENS = of_text(
  _is_address, "must be PORT or ADDRESS:PORT, a port being at most 65535"
)
PATTERN = of_text(
  lambda v: not re.search(v, ""),
  "must be a regular expression that matches no empty text",
)
MASKED = of_text(
  lambda v: not any(SECRETS in x or re.search(x, "") for x in own_masks(v)),
  f"must be empty or a regular expression that matches no empty text; {SECRETS}"
  " is an alternative of its own, for e-mail addresses, tokens and passwords",
)
_PART = re.compile(
  r"embedding|letters|convolution|layer(s|[1-9]\d*)|head|taken"
)
PARTS = of_text(
  lambda v: all(map(_PART.fullmatch, v.split(","))),
  "must be embedding, letters, convolution, layers, layer1, layer2 and so on,"
  " head or taken, separated by commas",
)
TEMPERATURES = Rule(
  tuple,
  lambda v: v != () and all(map(_is_temperature, v)),
  "must be numbers, each 0 or from 1e-30 to 1e30",
)
WEIGHTS = Rule(
  tuple,
  lambda v: len(v) == 2 and all(map(_is_weight, v)) and any(v),
  "must be two numbers from 0 to 1e30, not both 0",
)
STOPS = of_text(
  _are_stops,
  'must be a text, or a JSON list of texts, such as ["\\n"], none of them'
  " empty",
)
FOLDS = Rule(
  int, lambda v: v == 0 or 2 <= v <= 1000, "must be from 2 to 1000, or 0"
)
SPACE = Rule(
  list,
  lambda v: all(isinstance(text, str) and "=" in text for text in v),
  "must be FIELD=VALUES",
  default=(),
)
