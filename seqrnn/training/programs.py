"""The jitted programs of a training, which trials of a search share."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import optax
from jax.sharding import Mesh

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.experiment import Experiment
from seqrnn.training import optimizers, rates
from seqrnn.training.started import Record
from seqrnn.training.step import make_start, make_step


def without_rate(config: Config) -> frozenset[tuple[str, Any]]:
  """Returns all fields but the learning rate, which no program contains."""
  fields = config_lib.flat(config) | {"optimizer.learning_rate": None}
  return frozenset(fields.items())


def keep_last(key: Callable[..., Any], count: int = 1) -> Callable[..., Any]:
  """Returns a decorator: a call with the key of the last one has its result.

  Args:
    key: a function of the arguments, which the result depends on.
    count: the number of last results that are kept.
  """

  def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    last: deque[tuple[Any, Any]] = deque(maxlen=count)

    def kept(*args: Any) -> Any:
      found = key(*args)
      for other, result in last:
        if other == found:
          return result
      last.append((found, function(*args)))
      return last[-1][1]

    return kept

  return decorate


@keep_last(
  lambda experiment, config, schedule, mesh, record: (
    experiment.loss,
    mesh,
    schedule.args[1:],
    without_rate(config),
    record,
  )
)
def programs(
  experiment: Experiment,
  config: Config,
  schedule: partial,
  mesh: Mesh,
  record: Record | None,
) -> tuple[Any, Any]:
  """Returns the jitted functions of `make_step` and `make_start`.

  The last ones are kept: trials that differ only in the learning rate have the
  same experiment, and trace and load their programs once.
  """
  optimizer = lambda rate: optimizers.optimizer(config, schedule(rate))
  shares = rates.shares(experiment, config, record)
  if shares is not None:
    whole, scale = optimizer, shares.scale()
    optimizer = lambda rate: optax.chain(whole(rate), scale)
    experiment = shares.frozen(experiment)
  average = config.train.ema is not None
  batch = experiment.batches("train", 0)[0]
  return (
    make_step(experiment, optimizer, mesh, config.train.ema or 1.0),
    make_start(experiment, optimizer, batch, mesh, average),
  )
