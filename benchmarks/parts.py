"""Compares the time of a layer with nn.scan, the fused scan, and its products.

  python benchmarks/parts.py [--hidden_size=512 --batch_size=128 --window=40]
      [--cell=lstm]

It prints the milliseconds of one layer, whose input has the size of its state,
on one device: the minimum and the median of rounds in which the variants
alternate. `products` are the matrix products of the layer alone, with the same
shapes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def works(name: str, H: int, B: int, T: int) -> dict[str, Callable[[], Any]]:
  """Returns variant -> compiled function without arguments."""
  import jax  # Import slow packages after the arguments are parsed.
  import jax.numpy as jnp

  from seqrnn.models import cells, layers
  from seqrnn.models.products import Products, kernel_gradient, product
  from seqrnn.runtime import sharding

  cell = {"lstm": cells.LSTM, "gru": cells.GRU}[name](H)
  K = cell.gate_count * H
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  x_BTD, x_TBD, d_TBK, h_BH = (
    draw(B, T, H),
    draw(T, B, H),
    draw(T, B, K),
    draw(B, H),
  )
  mask, carry = jnp.ones((B, T), bool), cell.initial_carry(B)
  params = layers.Recurrent(cell).init(jax.random.key(0), x_BTD, mask, carry)

  def output(fused, params, x_BTD):
    by = cell if fused else cell.clone(products=Products(plain=True))
    module = layers.Recurrent(by)
    return module.apply(params, x_BTD, mask, carry)[1]

  def loss(fused, params, x_BTD):
    return jnp.sum(output(fused, params, x_BTD) ** 2)

  R = draw(H, K) / H**0.5

  def steps(h_BH, R):
    # A loop, so that R is read from the same memory as in the scan.
    once = lambda h, _: (jnp.tanh((h @ R)[:, :H]), None)
    return jax.lax.scan(once, h_BH, None, length=T)[0]

  parts = {
    "forward, nn.scan": (lambda p, x: output(False, p, x), params, x_BTD),
    "forward, fused": (lambda p, x: output(True, p, x), params, x_BTD),
    "gradient, nn.scan": (
      jax.grad(lambda p, x: loss(False, p, x), (0, 1)),
      params,
      x_BTD,
    ),
    "gradient, fused": (
      jax.grad(lambda p, x: loss(True, p, x), (0, 1)),
      params,
      x_BTD,
    ),
    "products: x @ W": (product, x_TBD, R),
    "products: h @ R, T times": (steps, h_BH, R),
    "products: gradient of W, or of R": (kernel_gradient, x_TBD, d_TBK),
    "products: gradient of x": (lambda d, W: product(d, W.T), d_TBK, R),
  }
  made = {}
  for name, (function, *given) in parts.items():
    compiled = sharding.jit(function).lower(*given).compile()
    made[name] = lambda compiled=compiled, given=given: jax.block_until_ready(
      compiled(*given)
    )
  return made


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--hidden_size", type=int, default=512)
  parser.add_argument("--batch_size", type=int, default=128)
  parser.add_argument("--window", type=int, default=40)
  parser.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
  parser.add_argument("--rounds", type=int, default=15)
  given = parser.parse_args()
  parts = works(given.cell, given.hidden_size, given.batch_size, given.window)
  times: dict[str, list[float]] = {name: [] for name in parts}
  for _ in range(given.rounds):
    for name, part in parts.items():
      begin = time.perf_counter()
      part()
      times[name].append(1e3 * (time.perf_counter() - begin))
  print("| part | least ms | median ms |\n| --- | --- | --- |")
  for name, found in times.items():
    print(f"| {name} | {min(found):.1f} | {statistics.median(found):.1f} |")


if __name__ == "__main__":
  main()
