"""Samples under twelve patterns, each checked by Python's re and by jsonschema.

  pip install -e '.[test]'
  python benchmarks/patterns.py [--workdir=RUN] [--samples=10000] [--length=200]

For each pattern: the states of its table, the distinct texts, and the time. The
status is 1 if a text does not match. Without --workdir, the texts are those of
an untrained model of the printable ASCII characters.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STREAMS = 1000  # Texts that are drawn at once.
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_NAME = "[a-z_][a-z0-9_]*"
PATTERNS = {
  "dates": r"(19|20)\d{2}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
  "e-mail addresses": r"[a-z][a-z0-9._]*@[a-z0-9]+(\.[a-z]{2,3}){1,2}",
  "decimal numbers": r"[+-]?(0|[1-9]\d{0,5})(\.\d+)?([eE][+-]?\d{1,3})?",
  "IPv4 addresses": rf"({_OCTET}\.){{3}}{_OCTET}",
  "colours": r"#([0-9a-f]{3}){1,2}",
  "times": r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?",
  "def lines": rf"def {_NAME}\(({_NAME}(, {_NAME})*)?\)( -> {_NAME})?:\n",
  "import lines": rf"(from (\.*{_NAME}|\.+)(\.{_NAME})* )?import {_NAME}"
  rf"( as {_NAME})?(, {_NAME}( as {_NAME})?)*\n",
  "log lines": r"\[\d\d:\d\d:\d\d\] (INFO|WARN(ING)?|ERROR) [\w.]+: [^\n]+\n",
  "telephone numbers": r"(\+\d{1,3} )?(\(\d{2,4}\) |\d{2,4}[ -])"
  r"\d{3}[ -]?\d{4}",
}
SCHEMAS: dict[str, dict[str, Any]] = {
  "JSON of an order": {
    "type": "object",
    "properties": {
      "id": {"type": "integer"},
      "day": {"type": "string", "format": "date"},
      "customer": {
        "type": "object",
        "properties": {
          "name": {"type": "string", "minLength": 1, "maxLength": 12},
          "vip": {"type": "boolean"},
        },
        "required": ["name"],
      },
      "items": {
        "type": "array",
        "items": {
          "type": "object",
          "properties": {
            "sku": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
            "count": {"enum": [1, 2, 10]},
          },
          "required": ["sku", "count"],
        },
        "minItems": 1,
        "maxItems": 3,
      },
    },
    "required": ["id", "items"],
  },
  "JSON of a tree": {
    "$defs": {
      "tree": {
        "type": "object",
        "properties": {
          "value": {"type": ["number", "null"]},
          "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
        },
        "required": ["value"],
      }
    },
    "$ref": "#/$defs/tree",
  },
}


class Drawn(NamedTuple):
  """The samples of a pattern.

  Attributes:
    name: of the pattern.
    states: of its table, without the one after an end symbol.
    texts: all that were drawn.
    wrong: those that do not match.
    seconds: of the draws, after one that compiles.
  """

  name: str
  states: int
  texts: list[str]
  wrong: list[str]
  seconds: float


def untrained(size: int = 32) -> Any:
  """Returns a run whose model has random parameters."""
  import jax

  import experiments
  from configs import base
  from seqrnn.data.vocabulary import Vocabulary

  config = base.get_config()
  config.model.hidden_size = size
  symbols = Vocabulary("char", ("\n", *map(chr, range(32, 127))))
  made = experiments.build(config, {"symbols": symbols})
  params = jax.jit(made.init)(jax.random.key(0))
  return experiments.Run(Path(), config, made, params, 0)


def draw(run: Any, samples: int, length: int) -> Iterator[Drawn]:
  """Yields the samples of each pattern, checked.

  Args:
    run: draws them.
    samples: the number of texts of a pattern.
    length: the most symbols of a text.
  """
  import jsonschema

  from seqrnn.inference.patterns import schema
  from seqrnn.inference.patterns.table import NEVER, compile_pattern

  streams = min(samples, STREAMS)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "schema.json"
    for name in [*PATTERNS, *SCHEMAS]:
      pattern = PATTERNS.get(name)
      given = {"pattern": pattern}
      check = None
      if pattern is None:
        path.write_text(json.dumps(SCHEMAS[name]), "utf-8")
        given = {"schema": str(path)}
        pattern = schema.pattern_of(str(path))
        check = jsonschema.Draft202012Validator(SCHEMAS[name])
      table = compile_pattern(pattern, run.experiment.vocabularies["symbols"])
      given |= {"streams": streams, "length": length}
      run.sample(**given)
      begin = time.perf_counter()
      texts = []
      for seed in range(-(-samples // streams)):
        texts += run.sample(seed=seed, **given)
      seconds = time.perf_counter() - begin
      fits = re.compile(pattern).fullmatch
      wrong = [
        text
        for text in texts
        if not fits(text) or check and not check.is_valid(json.loads(text))
      ]
      states = int((table.need_SV < NEVER).any(axis=1).sum()) - 1
      yield Drawn(name, states, texts, wrong, seconds)


def main():
  """Prints a row for each pattern."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", help="of a run on characters")
  parser.add_argument("--samples", type=int, default=10_000)
  parser.add_argument("--length", type=int, default=200)
  given = parser.parse_args()
  import seqrnn

  run = seqrnn.load(given.workdir) if given.workdir else untrained()
  failed = False
  print("| pattern | states | texts | distinct | seconds | one of them |")
  print("| --- | --- | --- | --- | --- | --- |")
  for one in draw(run, given.samples, given.length):
    failed |= bool(one.wrong)
    example = one.wrong[0] if one.wrong else one.texts[1]
    print(
      f"| {one.name} | {one.states} | {len(one.texts) - len(one.wrong):,} of"
      f" {len(one.texts):,} match | {len({*one.texts}):,} | {one.seconds:.1f} |"
      f" {example!r} |",
      flush=True,
    )
  sys.exit(failed)


if __name__ == "__main__":
  main()
