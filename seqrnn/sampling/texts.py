"""Texts that a model draws, with the settings of `config.sample`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.config.rules import parse_stops
from seqrnn.data.read import reading
from seqrnn.data.read.reading import Source
from seqrnn.data.read.spelling import spelled
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, UNKNOWN, Vocabulary
from seqrnn.errors import UserError, listed, report
from seqrnn.experiment import Experiment, Params
from seqrnn.sampling import decoding, patterns, schema
from seqrnn.sampling.automaton import PatternError
from seqrnn.sampling.decoding import ending
from seqrnn.sampling.sampler import generator

_PRIME = "config.sample.prime"
_ROWS = 64  # Texts for a file of prompts that are drawn together, at most.


Drawn = list[str] | list[np.ndarray]  # Texts, or pieces of music.


class Sample(NamedTuple):
  """A text that was drawn, as a line of samples.jsonl.

  Attributes:
    prime: the prime that it continues.
    text: the whole text, with the prime as the model reads it.
    temperature: at which it was drawn.
    seed: of the draws.
    ended: `end`, at the end symbol; `stop`, at a stop text; or `length`.
  """

  prime: str
  text: str
  temperature: float
  seed: int
  ended: str


def prompts(path: str) -> list[tuple[str, str]]:
  """The lines of `sample.prompts`: their places, for errors, and their texts.

  Empty lines are prompts, too, but for JSON lines.

  Raises:
    UserError: the file cannot be read, or has no prompt.
  """
  lines = reading.lines(Source(path, Path(path)), "strict")
  rows = [(f"{path}:{n}: prime", line) for n, line in enumerate(lines, 1)]
  if path.endswith(".jsonl"):
    rows = [(where, _of_json(where, s)) for where, s in rows if s.strip()]
  if not rows:
    raise UserError(f"config.sample.prompts={path!r}: has no prompt")
  return rows


def _of_json(where: str, line: str) -> str:
  try:
    prime = json.loads(line)["prime"]
    prime.encode()  # It fails for half of a surrogate pair.
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise UserError(f"{where}: must be a text in a JSON object") from None
  return prime


def start_ids(symbols: Vocabulary, data: Config, prime: str) -> np.ndarray:
  """The ids before a prime, which are no part of a text.

  It is the begin symbol with `data.boundaries`. A model of one document, whose
  only begin it knows, has the line break `symbols.begin` in its place; so has,
  without a prime, a model without `data.boundaries`.
  """
  if symbols.begin and (data.boundaries or not prime):
    return symbols.encode([symbols.begin])
  begins = data.boundaries and (prime or symbols.begin is None)
  return np.array([BEGIN] if begins else [], np.int32)


def read_sequence(
  text: str, unit: str, data: Config, where: str
) -> str | list[str]:
  """The symbols of a text that is a sequence or a part of one.

  Raises:
    UserError: it is several; each line is a session.
  """
  documents = from_text(text, unit)
  if len(documents) > 1:
    raise UserError(
      f"{where}={text!r}: has {len(documents)} sequences of data.unit={unit},"
      " where one is needed"
    )
  return spelled(documents[0].symbols if documents else "", data)


def prime_ids(
  symbols: Vocabulary, prime: str, data: Config, seed: int, where: str = _PRIME
) -> tuple[np.ndarray, list[str]]:
  """The ids [P] that a text continues, and the prime's unknown symbols.

  Without `start_ids` and prime, the text starts from a random symbol.

  Raises:
    UserError: the prime is not one sequence; each line is a session.
  """
  tokens = read_sequence(prime, symbols.unit, data, where)
  start = start_ids(symbols, data, prime)
  ids = np.concatenate([start, symbols.encode(tokens)])
  if not len(ids):
    rng = np.random.default_rng(seed)
    ids = rng.integers(UNKNOWN + 1, len(symbols), 1, np.int32)
  return ids, symbols.unknown(tokens)


def report_unknown(unknown: list[str], where: str):
  """Prints a line on stderr with the symbols that a model does not know."""
  if unknown:
    report(f"{where}: read as unknown: {listed(unknown)}")


class Writing(NamedTuple):
  """A model, and the texts that it continues.

  Attributes:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
    primes: the texts to continue.
    rows: their ids.
    shown: of each row, the ids that are a part of its text.
    stops: the texts that end a text.
  """

  experiment: Experiment
  params: Params
  config: Config
  primes: list[str]
  rows: list[np.ndarray]
  shown: list[np.ndarray]
  stops: list[str]

  @property
  def symbols(self) -> Vocabulary:
    return self.experiment.vocabularies["symbols"]

  def generate(
    self, prime_BP: np.ndarray, seed: int, temperature: float
  ) -> Iterator[np.ndarray]:
    """Chunks of drawn symbols, [B, n]."""
    settings, decoder = self.config.sample, self.experiment.decoder
    assert decoder is not None, "checked by the caller"
    limits = decoding.Limits(min_p=settings.min_p)
    if (settings.top_k, settings.top_p) != (None, None):
      top_k, top_p = settings.top_k or len(self.symbols), settings.top_p or 1.0
      limits = limits._replace(top_k=top_k, top_p=top_p)
    applied = _applied(self.config, self.symbols, temperature)
    draw = generator(decoder, length=settings.length, applied=applied)
    return draw(self.params, prime_BP, seed, temperature, limits)

  def endings(
    self, shown: list[np.ndarray], drawn_BT: np.ndarray
  ) -> list[tuple[str, str]]:
    """The text of each row, and why it ends, as `decoding.ending`."""
    return [
      ending(self.symbols, *ids, self.stops)
      for ids in zip(shown, drawn_BT, strict=True)
    ]


def _applied(
  config: Config, symbols: Vocabulary, temperature: float
) -> list[decoding.Applied]:
  """The processors of `config.sample`, in the order of their use.

  This is the order of Hugging Face's transformers, but for no_repeat, which
  comes last, as it yields where the others leave no other symbol.
  """
  settings, applied = config.sample, []
  if settings.repetition_penalty is not None:
    penalty = settings.repetition_penalty
    applied.append(decoding.repetition_penalty(penalty, len(symbols)))
  name, pattern = "pattern", settings.pattern
  if settings.schema is not None:
    name, pattern = "schema", schema.pattern_of(settings.schema)
  if pattern is not None:
    length, boundaries = settings.length, config.data.boundaries
    try:
      automaton = patterns.compile_pattern(pattern, symbols)
      one = patterns.constraint(automaton, length, temperature, boundaries)
    except PatternError as error:
      raise UserError(
        f"config.sample.{name}={settings[name]!r}: {error}"
      ) from None
    applied.append(one)
  if settings.no_repeat is not None:
    applied.append(decoding.no_repeat(settings.no_repeat, settings.length))
  return applied


def begin(experiment: Experiment, params: Params, config: Config) -> Writing:
  """The texts of `config.sample` to draw; warns of unknown symbols.

  Raises:
    UserError: the primes cannot be read.
  """
  settings, rows, shown, unknown = config.sample, [], [], {}
  symbols = experiment.vocabularies["symbols"]
  field, primes = "sample.prime", [(_PRIME, settings.prime)]
  primes *= settings.streams
  if settings.prompts is not None:
    field, primes = "sample.prompts", prompts(settings.prompts)
  for n, (where, prime) in enumerate(primes):
    ids, strange = prime_ids(
      symbols, prime, config.data, settings.seed + n, where
    )
    rows.append(ids)
    # A random first symbol is no part of a match.
    random = not prime and (settings.pattern or settings.schema) is not None
    start = start_ids(symbols, config.data, prime)
    shown.append(ids[:0] if random else ids[len(start) :])
    unknown |= dict.fromkeys(strange)
  report_unknown([*unknown], field)
  texts = [prime for _, prime in primes]
  stops = [] if settings.stop is None else parse_stops(settings.stop)
  return Writing(experiment, params, config, texts, rows, shown, stops)


def draw(writing: Writing, temperature: float) -> Iterator[Sample]:
  """The texts at a temperature."""
  settings, count = writing.config.sample, len(writing.rows)
  size = count if settings.prompts is None else min(count, _ROWS)
  for first in range(0, count, size):
    # The last group is filled up, as another number of rows would compile.
    chosen = [min(n, count - 1) for n in range(first, first + size)]
    seed = settings.seed
    if first:  # Each group has draws of its own.
      [seed] = np.random.SeedSequence((seed, first)).generate_state(1)
    rows, shown = (
      [ids[n] for n in chosen] for ids in (writing.rows, writing.shown)
    )
    P = max(map(len, rows))
    prime_BP = np.stack([np.pad(row, (P - len(row), 0)) for row in rows])
    drawn_BT = np.empty((size, 0), np.int32)
    for chunk_BT in writing.generate(prime_BP, seed, temperature):
      drawn_BT = np.concatenate([drawn_BT, chunk_BT], axis=1)
      if writing.stops and all(
        end != "length" for _, end in writing.endings(shown, drawn_BT)
      ):
        break
    endings = writing.endings(shown, drawn_BT)
    primes = writing.primes[first:]  # The last group may have fewer.
    for prime, (text, end) in zip(primes, endings, strict=False):
      yield Sample(prime, text, temperature, settings.seed, end)


def sample(experiment: Experiment, params: Params, config: Config) -> list[str]:
  """The texts of `config.sample`, temperature by temperature, prime included.

  Args:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
  """
  writing = begin(experiment, params, config)
  return [
    one.text
    for temperature in config.sample.temperature
    for one in draw(writing, temperature)
  ]
