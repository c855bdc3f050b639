"""Figures as (total, weight) pairs: summed on the device, divided once."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def zeros(totals: Any) -> Any:
  """Sums of nothing, for `add`; `totals` may be shapes only."""
  return jax.tree.map(lambda x: jnp.zeros((2, *x.shape)), totals)


def add(sums: Any, totals: Any) -> Any:
  """Adds a batch's totals to running sums.

  A sum is [2, ...]: its value and the rounding error that the next addition
  makes good (Kahan 1965). A plain float32 sum is off by a per cent after a
  billion symbols.
  """

  def one(sum_2, value):
    value = value - sum_2[1]
    new = sum_2[0] + value
    return jnp.stack([new, (new - sum_2[0]) - value])

  return jax.tree.map(one, sums, totals)


def finish(sums: dict, in_bits: bool = True) -> dict[str, float]:
  """Divides totals by weights; nats a symbol also as bits and perplexity.

  Totals of several classes give the mean of their figures, over the classes
  that have weight. A ratio of nothing is 0, but there is no loss of nothing.

  Args:
    sums: as `add` makes them.
    in_bits: whether the loss is one of symbols, as Experiment has it.
  """
  figures = {}
  for name, (total, weight) in jax.device_get(sums).items():
    total, weight = np.atleast_1d(total[0], weight[0])
    some = weight != 0
    ratios = np.divide(total[some], weight[some], dtype=np.float64)
    figures[name] = float(ratios.mean()) if len(ratios) else 0.0
    if name == "loss" and not len(ratios):
      figures[name] = math.nan
  if in_bits and "loss" in figures:
    figures["bits_per_symbol"] = figures["loss"] / math.log(2)
    # exp(710) is beyond a float; a loss that large is no perplexity anyway.
    figures["perplexity"] = math.exp(min(figures["loss"], 700.0))
  return figures
