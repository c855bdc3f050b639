"""The probability of a text, under the model or under a pattern."""

import numpy as np

from seqrnn.data.corpora import from_text
from seqrnn.data.spelling import spelled
from seqrnn.data.vocabulary import BEGIN, END
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.inference.patterns import constraint
from seqrnn.inference.primes import prime_ids
from seqrnn.inference.replay import log_probabilities
from seqrnn.settings.config import Config

_ENDLESS = 2**30  # A text may have any length.


def log_prob(
  experiment: Experiment, params: Params, config: Config, text: str
) -> float:
  """The log-probability of a text after `sample.prime`, in nats.

  Args:
    experiment: with a decoder.
    params: of its model.
    config: of the run. With `sample.pattern` or `sample.schema` it is that of
      the sampler at temperature 1.
    text: in the format of the run's data. Its end is counted if the model has
      learned it (`data.boundaries`), or if there is a pattern.

  Returns:
    -inf if the text does not match.

  Raises:
    UserError: the text is not one sequence, it has no symbol before it, or the
      task writes music.
  """
  data, settings = config.data, config.sample
  assert experiment.decoder is not None, "checked by the caller"
  if not experiment.writes_text:
    raise UserError(f"task={config.task!r}: writes no text")
  symbols = experiment.vocabularies["symbols"]
  if not (data.boundaries or settings.prime):
    raise UserError(
      "prime='': must not be empty for a run with data.boundaries=false, whose"
      " first symbol has no probability"
    )
  documents = from_text(text, symbols.unit) if text else []
  if text and len(documents) != 1:
    raise UserError(
      f"text={text!r}: has {len(documents)} sequences of data.unit="
      f"{symbols.unit}; it must be one"
    )
  ids = symbols.encode(spelled(documents[0].symbols if text else "", data))
  prime_BP, _ = prime_ids(symbols, settings.prime, data, 1, settings.seed)
  if symbols.begin == "" and not settings.prime:  # A sample begins anywhere.
    prime_BP = np.array([[BEGIN]], np.int32)
  applied = constraint.applied(config, symbols, 1.0, _ENDLESS)
  if applied or data.boundaries:
    ids = np.append(ids, np.int32(END))
  if not len(ids):
    return 0.0
  model_BT, after_BT = log_probabilities(
    experiment.decoder, params, prime_BP, ids[None], applied
  )
  return float((after_BT if applied else model_BT).sum(dtype=np.float64))
