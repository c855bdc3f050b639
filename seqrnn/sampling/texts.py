"""Texts that a model draws, with the settings of `config.sample`."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.field import texts as parse_texts
from seqrnn.config.read import Config
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.sampling import choice, penalties, processors
from seqrnn.sampling.patterns import constraint as patterns
from seqrnn.sampling.primes import (
  aligned,
  prime_ids,
  prompts,
  report_unknown,
  start_ids,
)
from seqrnn.sampling.replay import log_probabilities
from seqrnn.sampling.sampler import generator
from seqrnn.sampling.stopping import collect, ending, pieces

_EXCERPT = 60  # Symbols.
_ROWS = 64  # Texts for a file of prompts that are drawn together, at most.


class Sample(NamedTuple):
  """A text that was drawn, as a line of samples.jsonl.

  Attributes:
    prime: what it continues.
    text: the whole text, with the prime as the model reads it.
    log_prob: the log-probability of the drawn symbols under the model at
      temperature 1, in nats; None unless it was asked for.
    log_prob_pattern: the same with the pattern or schema and other settings
      that change logits; None without one.
    symbols: the number of drawn symbols; the end symbol, or the symbols of the
      stop text, are among them.
    temperature: at which it was drawn.
    seed: of the draws.
    ended: `end`, at the end symbol; `stop`, at a stop text; or `length`.
  """

  prime: str
  text: str
  log_prob: float | None
  log_prob_pattern: float | None
  symbols: int
  temperature: float
  seed: int
  ended: str


def fields(settings: dict[str, Any]) -> dict[str, Any]:
  """Values of fields, of which one temperature or stop texts may be simpler."""
  temperature, stop = settings.get("temperature"), settings.get("stop")
  if isinstance(temperature, int | float):
    settings = {**settings, "temperature": (float(temperature),)}
  if isinstance(stop, list | tuple):
    # The rule of the field refuses null.
    listed = json.dumps(stop, default=lambda _: None)
    settings = {**settings, "stop": listed}
  return settings


def excerpts(experiment: Experiment, config: Config) -> Callable[[Params], str]:
  """A function params -> the first symbols of a sample.

  The excerpt is empty where a task writes no text.
  """
  settings = config.sample
  if not experiment.writes_text:
    return lambda _: ""
  config = copy.deepcopy(config)
  # They may need more symbols.
  config.sample.update(pattern=None, schema=None, min_length=0)
  generate = _begin(experiment, config, _EXCERPT)
  symbols = experiment.vocabularies["symbols"]
  prime_BP, _ = prime_ids(
    symbols, settings.prime, config.data, 1, settings.seed
  )

  hidden = len(start_ids(symbols, config.data, settings.prime))

  def excerpt(params: Params) -> str:
    chunks = generate(params, prime_BP, settings.seed, settings.temperature[0])
    [ids] = np.concatenate([prime_BP, *chunks], axis=1)
    return symbols.text(ids[hidden:])

  return excerpt


def _begin(
  experiment: Experiment, config: Config, length: int
) -> Callable[..., Iterator[np.ndarray]]:
  """A function params, prime_BP, seed, temperature -> chunks of symbols."""
  settings, symbols = config.sample, experiment.vocabularies["symbols"]
  assert experiment.decoder is not None, "checked by the caller"
  how, more = choice.SYMBOL, ()
  limits = choice.Limits(min_p=settings.min_p)
  if (settings.top_k, settings.top_p) != (None, None):
    top_k, top_p = settings.top_k or len(symbols), settings.top_p or 1.0
    limits = limits._replace(top_k=top_k, top_p=top_p)
  if limits != choice.Limits():
    how, more = choice.LIKELY_SYMBOL, (limits,)
  decoder = experiment.decoder

  def generate(
    params: Params, prime_BP: np.ndarray, seed: int, temperature: float
  ) -> Iterator[np.ndarray]:
    applied = _applied(config, symbols, temperature, length)
    draw = generator(decoder, length=length, how=how, applied=applied)
    return draw(params, prime_BP, seed, temperature, *more)

  return generate


def _applied(
  config: Config, symbols: Vocabulary, temperature: float, length: int
) -> list[processors.Applied]:
  """The processors of `config.sample`, in the order of their use.

  This is the order of Hugging Face's transformers, but for no_repeat, which
  comes last, as it yields where the others leave no other symbol.
  """
  settings = config.sample
  applied: list[processors.Applied] = []
  if settings.repetition_penalty is not None:
    penalty = settings.repetition_penalty
    applied.append(penalties.repetition_penalty(penalty, len(symbols)))
  if settings.min_length:
    applied.append(penalties.min_length(settings.min_length))
  applied += patterns.applied(config, symbols, temperature, length)
  if settings.no_repeat is not None:
    applied.append(penalties.no_repeat(settings.no_repeat, length))
  return applied


class Writing(NamedTuple):
  """What draws the texts of a config, and what they continue.

  Attributes:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
    generate: draws symbols, as `_begin` returns it.
    primes: the texts to continue.
    rows: their ids.
  """

  experiment: Experiment
  params: Params
  config: Config
  generate: Callable[..., Iterator[np.ndarray]]
  primes: list[str]
  rows: list[np.ndarray]

  @property
  def symbols(self) -> Vocabulary:
    return self.experiment.vocabularies["symbols"]

  @property
  def stops(self) -> list[str]:
    stop = self.config.sample.stop
    return [] if stop is None else parse_texts(stop)

  @property
  def patterned(self) -> bool:
    settings = self.config.sample
    return (settings.pattern, settings.schema) != (None, None)

  @property
  def applied(self) -> list[processors.Applied]:
    """The processors of the logits at temperature 1."""
    return _applied(self.config, self.symbols, 1.0, self.config.sample.length)

  def shown(self, n: int) -> np.ndarray:
    """The ids of a prime that are a part of its text."""
    # A random first symbol is no part of a match.
    prime, ids = self.primes[n], self.rows[n]
    if self.patterned and not prime:
      return ids[:0]
    return ids[len(start_ids(self.symbols, self.config.data, prime)) :]


def begin(experiment: Experiment, params: Params, config: Config) -> Writing:
  """What draws the texts of `config.sample`; warns of unknown symbols.

  Raises:
    UserError: the primes cannot be read.
  """
  settings, data = config.sample, config.data
  symbols = experiment.vocabularies["symbols"]
  generate = _begin(experiment, config, settings.length)
  if settings.prompts is None:
    prime_BP, unknown = prime_ids(
      symbols, settings.prime, data, settings.streams, settings.seed
    )
    report_unknown(unknown, "sample.prime")
    primes, rows = [settings.prime] * settings.streams, list(prime_BP)
  else:
    primes, rows, unknown = [], [], {}
    for n, (where, prime) in enumerate(prompts(settings.prompts)):
      [ids], strange = prime_ids(
        symbols, prime, data, 1, settings.seed + n, where
      )
      primes.append(prime)
      rows.append(ids)
      unknown |= dict.fromkeys(strange)
    report_unknown([*unknown], "sample.prompts")
  return Writing(experiment, params, config, generate, primes, rows)


def stream(writing: Writing, temperature: float) -> Iterator[str]:
  """Pieces of the first text, as they are drawn; joined they are the text."""
  prime_BP = writing.rows[0][None]
  seed = writing.config.sample.seed
  chunks = writing.generate(writing.params, prime_BP, seed, temperature)
  return pieces(writing.symbols, writing.shown(0), chunks, writing.stops)


def stream_of(
  experiment: Experiment, params: Params, config: Config
) -> Iterator[str]:
  """The pieces of the only text of `config.sample`.

  Raises:
    UserError: the task writes no text, or the settings ask for another number
      of texts.
  """
  settings = config.sample
  if not experiment.writes_text:
    raise UserError(f"task={config.task!r}: writes no text, which has pieces")
  allowed = {
    "temperature": len(settings.temperature) == 1,
    "streams": settings.streams == 1,
    "prompts": settings.prompts is None,
  }
  for name, holds in allowed.items():
    if not holds:
      raise UserError(
        f"config.sample.{name}={settings[name]!r}: a stream is one text"
      )
  return stream(begin(experiment, params, config), settings.temperature[0])


def draw(
  writing: Writing, temperature: float, scored: bool = False
) -> Iterator[Sample]:
  """The texts at a temperature.

  Args:
    writing: what to draw.
    temperature: at which it is drawn.
    scored: with log-probabilities.
  """
  settings, count = writing.config.sample, len(writing.rows)
  size = count if settings.prompts is None else min(count, _ROWS)
  for first in range(0, count, size):
    # The last group is filled up: another number of rows would compile.
    chosen = [min(n, count - 1) for n in range(first, first + size)]
    seed = settings.seed
    if first:  # Other groups have other draws.
      [seed] = np.random.SeedSequence((seed, first)).generate_state(1)
    samples = _group(writing, chosen, seed, temperature, scored)
    yield from samples[: count - first]


def _group(
  writing: Writing,
  chosen: list[int],
  seed: int,
  temperature: float,
  scored: bool,
) -> list[Sample]:
  """The text of each of the chosen primes."""
  settings, symbols = writing.config.sample, writing.symbols
  prime_BP = aligned([writing.rows[n] for n in chosen])
  chunks = writing.generate(writing.params, prime_BP, seed, temperature)
  shown = [writing.shown(n) for n in chosen]
  drawn_BT = collect(symbols, shown, chunks, writing.stops)
  samples, bounded = [], writing.config.data.boundaries
  for n, prime_P, drawn_T in zip(chosen, shown, drawn_BT, strict=True):
    text, size, ended = ending(symbols, prime_P, drawn_T, writing.stops)
    if ended == "end" and (writing.patterned or not bounded):
      size -= 1  # The model's own end has no probability, or another one.
    prime = writing.primes[n]
    samples.append(
      Sample(prime, text, None, None, size, temperature, settings.seed, ended)
    )
  return _scored(writing, prime_BP, drawn_BT, samples) if scored else samples


def _scored(
  writing: Writing,
  prime_BP: np.ndarray,
  drawn_BT: np.ndarray,
  samples: list[Sample],
) -> list[Sample]:
  """Texts with their log-probabilities."""
  decoder = writing.experiment.decoder
  assert decoder is not None, "checked by the caller"
  size_B1 = np.array([one.symbols for one in samples])[:, None]
  end_B1 = np.array([one.ended == "end" for one in samples])[:, None]
  place_1T = np.arange(drawn_BT.shape[1])[None]
  counted_BT = place_1T < size_B1
  # The sampler's probability has that of the end of a match.
  known_BT = place_1T < size_B1 + (end_B1 & writing.patterned)
  found = log_probabilities(
    decoder,
    writing.params,
    prime_BP,
    np.where(known_BT, drawn_BT, PAD),
    writing.applied,
  )
  model_BT, after_BT = (np.asarray(x, np.float64) for x in found)
  model_B = np.where(counted_BT, model_BT, 0).sum(axis=1).tolist()
  after_B = after_BT.sum(axis=1).tolist()
  if not writing.patterned:
    after_B = [None] * len(samples)
  return [
    one._replace(log_prob=model, log_prob_pattern=after)
    for one, model, after in zip(samples, model_B, after_B, strict=True)
  ]


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
