"""Texts that a model draws, with the settings of `config.sample`."""

import copy
import sys
from collections.abc import Callable, Iterator

import numpy as np

from seqrnn.experiment import Experiment, Params
from seqrnn.inference import choice
from seqrnn.inference.patterns import constraint as patterns
from seqrnn.inference.patterns.resampling import resampled
from seqrnn.inference.primes import prime_ids
from seqrnn.inference.sampler import generator
from seqrnn.settings.config import Config


def excerpts(experiment: Experiment, config: Config) -> Callable[[Params], str]:
  """A function params -> the first `train.sample_length` symbols of a sample.

  The excerpt is empty where a task writes no text.
  """
  settings, length = config.sample, config.train.sample_length
  if not length or not experiment.writes_text:
    return lambda _: ""
  config = copy.deepcopy(config)
  # They may need more symbols.
  config.sample.update(pattern=None, schema=None, resample=1)
  generate, prime_BP, _ = _begin(experiment, config, length, streams=1)

  def excerpt(params: Params) -> str:
    chunks = generate(params, prime_BP, settings.seed, settings.temperature[0])
    [ids] = np.concatenate([prime_BP, *chunks], axis=1)
    return experiment.vocabularies["symbols"].text(ids)

  return excerpt


def _begin(
  experiment: Experiment, config: Config, length: int, streams: int
) -> tuple[Callable[..., Iterator[np.ndarray]], np.ndarray, list[str]]:
  """A function that draws texts, and the result of `prime_ids`.

  The function maps params, prime_BP, seed, temperature to chunks of symbols.
  """
  settings, symbols = config.sample, experiment.vocabularies["symbols"]
  assert experiment.decoder is not None, "checked by the caller"
  how, limits = choice.SYMBOL, ()
  if (settings.top_k, settings.top_p) != (None, None):
    how = choice.LIKELY_SYMBOL
    limits = settings.top_k or len(symbols), settings.top_p or 1.0
  decoder = experiment.decoder

  def generate(
    params: Params, prime_BP: np.ndarray, seed: int, temperature: float
  ) -> Iterator[np.ndarray]:
    # In the order in which they change the logits.
    applied = patterns.applied(config, symbols, temperature, length)
    draw = generator(decoder, length=length, how=how, applied=applied)
    if settings.resample > 1:
      draw = resampled(draw, decoder, applied[-1], settings.resample)
    return draw(params, prime_BP, seed, temperature, *limits)

  prime = prime_ids(
    symbols, settings.prime, config.data, streams, settings.seed
  )
  return generate, *prime


def sample(
  experiment: Experiment,
  params: Params,
  config: Config,
  show: Callable[[str], None] = lambda _: None,
) -> list[str]:
  """The texts of `config.sample`, temperature by temperature, prime included.

  Args:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
    show: is called with each piece of text once it is drawn.
  """
  settings = config.sample
  symbols = experiment.vocabularies["symbols"]
  generate, prime_BP, unknown = _begin(
    experiment, config, settings.length, settings.streams
  )
  if unknown:
    print(
      f"sample.prime: read as unknown: {' '.join(map(repr, unknown))}",
      file=sys.stderr,
    )
  texts = []
  for temperature in settings.temperature:
    if len(settings.temperature) > 1:
      show(f"----- temperature {temperature:g}\n")
    ids_BT = prime_BP
    if (settings.pattern or settings.schema) and not settings.prime:
      ids_BT = prime_BP[:, :0]  # A random first symbol is no part of a match.
    shown = 0  # Characters of the only stream that were shown.
    for chunk_BT in generate(params, prime_BP, settings.seed, temperature):
      ids_BT = np.concatenate([ids_BT, chunk_BT], axis=1)
      if settings.streams == 1:
        # The last byte of a chunk may begin a character of several bytes.
        text = symbols.text(ids_BT[0]).rstrip("\ufffd")
        show(text[shown:])
        shown = max(shown, len(text))
    made = [symbols.text(ids) for ids in ids_BT]
    if settings.streams == 1:
      show(made[0][shown:] + "\n")
    else:
      for number, text in enumerate(made, 1):
        show(f"----- stream {number}\n{text}\n")
    texts += made
  return texts
