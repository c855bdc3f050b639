"""Metrics as (total, weight) pairs: summed on the device, divided once."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def zeros(totals: Any) -> Any:
  """Sums that are zero, for `add`; only the shapes of `totals` are read."""
  return jax.tree.map(lambda x: jnp.zeros((2, *x.shape)), totals)


def add(sums: Any, totals: Any) -> Any:
  """Adds a batch's totals to running sums.

  A sum is [2, ...]: the value, and its rounding error, which the next addition
  corrects (Kahan 1965). A plain float32 sum is wrong by one per cent after a
  billion symbols.
  """

  def one(sum_2, value):
    value = value - sum_2[1]
    new = sum_2[0] + value
    return jnp.stack([new, (new - sum_2[0]) - value])

  return jax.tree.map(one, sums, totals)


def finish(sums: dict, in_bits: bool = True) -> dict[str, float]:
  """Divides totals by weights; a loss in nats also gives bits and perplexity.

  A metric with several classes is the mean over the classes that have weight.
  Without any weight a metric is 0, but the loss is NaN.

  Args:
    sums: as `add` returns them.
    in_bits: `Experiment.in_bits`, whether the loss is in nats per symbol.
  """
  values = {}
  for name, (total, weight) in jax.device_get(sums).items():
    total, weight = np.atleast_1d(total[0], weight[0])
    weighted = weight != 0
    ratios = np.divide(total[weighted], weight[weighted], dtype=np.float64)
    empty = math.nan if name == "loss" else 0.0
    values[name] = float(ratios.mean()) if len(ratios) else empty
  if in_bits and "loss" in values:
    values["bits_per_symbol"] = values["loss"] / math.log(2)
    # exp(710) overflows a float; only a diverged model has such a loss.
    values["perplexity"] = math.exp(min(values["loss"], 700.0))
  return values
