"""Compares a layer of linear and matrix-state cells with other scans.

  pip install -e '.[bench]'
  python benchmarks/cells.py                 # all rows
  python benchmarks/cells.py mlstm lru       # the rows with these prefixes
  python benchmarks/cells.py mlstm --products   # relative to the LSTM's

A step computes the values of a layer and the gradients of its parameters and of
its input: B 16, as many inputs as units H, one head, float32. `nn.scan` is
flax's scan of the same cell, `lax.associative_scan` scans the same terms in
log2(T) rounds, memax has the same recurrence, and `seqrnn, LSTM` has as many
parameters as the cell. The memory is that of a program's temporary arrays, as
the compiler plans it; a program that needs more than 16 GiB is not run. Each
program has a process, as in compare.py.
"""

import argparse
import importlib
import math
import sys
import time
from functools import partial
from typing import Any

import speed_page
from compare import Worker, steps_of_round
from peers import refuse_missing

B = 16
LINEAR = "min_gru", "rg_lru", "lru"
CELLS = *LINEAR, "mlstm", "gated_deltanet_signed", "deltaproduct_2"
SIZES = [f"{H} {T}" for H in (128, 512) for T in (128, 1024, 4096)]
ROWS = [f"{cell} {size}" for cell in CELLS for size in SIZES]
# The module and the class of memax with the recurrence of a cell.
MEMAX = {"lru": ("lru", "LRU"), "gated_deltanet_signed": ("gdn", "GDN")}
PROGRAMS = "seqrnn", "nn.scan", "lax.associative_scan", "memax", "seqrnn, LSTM"
_LIMIT = 16 * 2**10  # MiB.
_LONG = 20  # Seconds of a round that is not repeated.


def memax(name: str, x_BTD: Any) -> tuple[Any, Any] | None:
  """A function params, x_BTD -> y_BTH, and params; None: no such cell."""
  if name not in MEMAX:
    return None
  import jax

  equinox: Any = importlib.import_module("equinox")
  module, kind = MEMAX[name]
  module = importlib.import_module(f"memax.equinox.semigroups.{module}")
  H = x_BTD.shape[-1]
  layer = getattr(module, kind)(H, H, key=jax.random.key(0))
  params, rest = equinox.partition(layer, equinox.is_inexact_array)

  def run(params, x_BTD):
    layer = equinox.combine(params, rest)
    starts_BT = jax.numpy.isnan(x_BTD[..., 0])  # Not known to the compiler.
    one = lambda *inputs: layer(layer.initialize_carry(), inputs)[1]
    return jax.vmap(one)(x_BTD, starts_BT)

  return run, params


def seqrnn(program: str, name: str, x_BTD: Any) -> tuple[Any, Any] | None:
  """As memax; None: the cell has no such program."""
  import jax

  from seqrnn.models import cells, layers

  D = x_BTD.shape[-1]
  cell = cells.CELLS[name](D)
  if program == "seqrnn, LSTM":
    init = partial(cell.init, jax.random.key(0), x_BTD, method="inputs")
    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init)))
    # Of an LSTM, 4 (H² + H D + H).
    H = round((((D + 1) ** 2 + size) ** 0.5 - (D + 1)) / 2)
    cell = cells.CELLS["lstm"](H)
  if program == "nn.scan":
    cell = cell.clone(products=cell.products._replace(plain=True))
  layer = layers.Recurrent(cell)
  carry = layer.initial_carry(B)

  def run(params, x_BTD):
    mask_BT = jax.numpy.isfinite(x_BTD[..., 0])
    return layer.apply(params, x_BTD, mask_BT, carry)[1]

  if program == "lax.associative_scan":
    if not isinstance(cell, cells.Linear):
      return None
    join = lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1])

    def run(params, x_BTD):
      apply = partial(cell.apply, {"params": params["params"]["cell"]})
      z_TBK = apply(x_BTD.swapaxes(0, 1), method="inputs")
      terms = apply(z_TBK, method="terms")
      h_TBH: Any = jax.lax.associative_scan(join, terms)[1]
      if name == "lru":
        h_TBH = apply(h_TBH, z_TBK, method="output")
      return h_TBH.swapaxes(0, 1)

  mask_BT = jax.numpy.ones((B, 2), bool)
  return run, layer.init(jax.random.key(0), x_BTD[:, :2], mask_BT, carry)


def gradient(program: str, name: str) -> tuple[Any, Any, Any] | None:
  """The function of a row, and its arguments; None: there is no such layer."""
  import jax

  cell, H, T = name.split()
  x_BTD = jax.random.normal(jax.random.key(1), (B, int(T), int(H)))
  make = memax if program == "memax" else partial(seqrnn, program)
  if not (layer := make(cell, x_BTD)):
    return None
  run, params = layer
  return jax.grad(lambda *x: (run(*x) ** 2).sum(), (0, 1)), params, x_BTD


def compile_step(program: str, name: str) -> tuple[float, Any] | None:
  """The MiB and the step of a row; None: there is no such layer."""
  import jax

  if not (found := gradient(program, name)):
    return None
  function, *args = found
  step: Any = jax.jit(function).lower(*args).compile()
  mib = step.memory_analysis().temp_size_in_bytes / 2**20
  return mib, lambda: jax.block_until_ready(step(*args))


def products(jaxpr: Any) -> int:
  """The multiplications of the matrix products of a program."""
  from jax.extend.core import jaxprs_in_params

  total = 0
  for one in jaxpr.eqns:
    if one.primitive.name == "dot_general":
      (contracted, _), _ = one.params["dimension_numbers"]
      inner = (one.invars[0].aval.shape[axis] for axis in contracted)
      total += math.prod((*inner, *one.outvars[0].aval.shape))
    within = sum(map(products, jaxprs_in_params(one.params)))
    total += within * one.params.get("length", 1)  # Of a scan.
  return total


def times_lstm(name: str) -> float:
  """The products of a cell, divided by those of its LSTM."""
  import jax

  made = (gradient(program, name) for program in (PROGRAMS[0], PROGRAMS[-1]))
  cell, lstm = (products(jax.make_jaxpr(f)(*args)) for f, *args in made if f)
  return cell / lstm


def serve(program: str):
  """Answers a row by its MiB, and a number of steps by the seconds of one."""
  step: Any = None
  for line in sys.stdin:
    if line.strip().isdigit():
      start = time.perf_counter()
      for _ in range(int(line)):
        step()
      answer = (time.perf_counter() - start) / int(line)
    else:
      step = None  # Frees the arrays of the row before.
      answer, step = compile_step(program, line) or ("null", None)
    time.sleep(0.3)  # XLA frees arrays before the process is stopped.
    print(answer, flush=True)


def measure(
  workers: dict[str, Worker], name: str, rounds: int
) -> speed_page.Row:
  """Measures the programs of a row in turn."""
  peaks = {program: worker.ask(name) for program, worker in workers.items()}
  peaks = {program: round(mib) for program, mib in peaks.items() if mib}
  times = {program: [] for program, mib in peaks.items() if mib <= _LIMIT}
  steps = {
    program: steps_of_round(workers[program].ask(1)) for program in times
  }
  for _ in range(rounds):
    for program, seconds in times.items():
      seconds.append(float(f"{workers[program].ask(steps[program]):.4g}"))
    if sum(seconds[-1] for seconds in times.values()) > _LONG:
      break
  return {"seconds": times, "peak": peaks}


def rows(rounds: int, names: list[str] = ROWS) -> dict[str, speed_page.Row]:
  """Measures rows, by their names."""
  workers = {
    program: Worker(__file__, f"--serve={program}", huge_pages=True)
    for program in PROGRAMS
  }
  try:
    measured = ((name, measure(workers, name, rounds)) for name in names)
    return speed_page.printed("cells", measured)
  finally:
    for worker in workers.values():
      worker.end()


def main():
  """Prints the table, or is the process of a program."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("filter", nargs="*", help="how the rows' names begin")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--products", action="store_true")
  parser.add_argument("--serve", choices=PROGRAMS, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.serve:
    return serve(arguments.serve)
  names = [n for n in ROWS if n.startswith(tuple(arguments.filter or [""]))]
  if not names:
    parser.error(f"{' '.join(arguments.filter)}: no row begins so")
  if arguments.products:
    return print("\n".join(f"{n} {times_lstm(n):.2f}" for n in names))
  refuse_missing(parser, "memax")
  print(speed_page.part("cells", {"rows": rows(arguments.rounds, names)}))


if __name__ == "__main__":
  main()
