"""Compares sampling and scoring of seqrnn with loops in PyTorch and Keras.

  pip install -e '.[bench]'
  python benchmarks/inference.py [--rounds=5]

sampling: two LSTM layers and a softmax over 65 symbols, symbol by symbol.
seqrnn: the function of the mode `sample`. PyTorch: a loop over nn.LSTM that
keeps the state, with the better of one and two threads; in bfloat16 with
autocast. Keras: `model.predict` on the last 40 symbols for each symbol, as in
fluency03/sequence-rnn-py; it is slow, so it samples few symbols.

scoring: the cross-entropy of a text in windows of 100, 50 windows a batch.
seqrnn: the function of the mode `evaluate`. PyTorch: a loop over the same
batches. Keras: `model.predict` on the same batches.

For each size, all libraries run in one process and are measured in turn.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import speed_page
from inference_models import (
  WINDOW,
  V,
  Work,
  experiment,
  keras_model,
  pytorch,
  torch_model,
)
from peers import refuse_missing

os.environ.setdefault("KERAS_BACKEND", "jax")

SIZES = ("128", "512")


def sampling(H: int, streams: int) -> Work:
  """Returns the work of sampling."""
  from seqrnn.sampling.sampler import generator

  length = 6400 // min(streams, 4) if H < 200 else 640
  prime_BP = np.full((streams, 1), 5, np.int32)

  def ours(products):
    @functools.cache  # Makes the model at the first call.
    def make():
      model, params = experiment(H, products=products)
      assert model.decoder is not None
      generate = generator(model.decoder, length=length)
      return functools.partial(generate, params, prime_BP, 0, 1.0)

    def run():
      for chunk in make()():
        assert len(chunk) == streams

    return run

  steps = 400 if H < 200 else 40
  return {
    "seqrnn": (length * streams, ours("float32")),
    "seqrnn, bfloat16": (length * streams, ours("bfloat16")),
    **pytorch(steps * streams, torch_sampling(H, streams, steps)),
    "Keras on JAX": (10 * streams, keras_sampling(H, streams, 10)),
  }


def torch_sampling(H: int, streams: int, count: int) -> Callable[[], Any]:
  """Returns a loop in PyTorch."""
  import torch

  model = torch_model(H)

  @torch.inference_mode()
  def run():
    ids_B1 = torch.full((streams, 1), 5)
    state = None
    for _ in range(count):
      logits_B1V, state = model(ids_B1, state)
      chances_BV = torch.softmax(logits_B1V[:, 0], -1)
      ids_B1 = torch.multinomial(chances_BV, 1)

  return run


def keras_sampling(H: int, streams: int, count: int) -> Callable[[], Any]:
  """Returns a loop of `predict` on the last symbols."""
  last = keras_model(H, sequences=False)

  def windows():
    rng = np.random.default_rng(0)
    ids_BT = np.full((streams, WINDOW), 5, np.int32)
    for _ in range(count):
      logits_BV = last.predict(ids_BT, verbose=0, batch_size=streams)
      noise_BV = rng.gumbel(size=logits_BV.shape)
      new_B1 = np.argmax(logits_BV + noise_BV, -1)[:, None]
      ids_BT = np.concatenate([ids_BT[:, 1:], new_B1], 1)

  return windows


def scoring(H: int) -> Work:
  """Returns the work of scoring."""
  import jax
  import torch

  from seqrnn.data.batches.windows import Batches
  from seqrnn.runtime import sharding
  from seqrnn.scoring.evaluation import examiner

  T, B, N = 100, 50, 20 if H < 200 else 6
  rng = np.random.default_rng(0)
  ids_NBT = rng.integers(4, V, (N, B, T + 1)).astype(np.int32)

  def batch(i, start, stop):
    ids_BT = ids_NBT[i, start:stop]
    return {
      "inputs": ids_BT[:, :-1],
      "targets": ids_BT[:, 1:],
      "weights": np.ones((stop - start, T), np.float32),
      "reset": np.ones(stop - start, bool),
    }

  mesh = sharding.mesh()
  batches = Batches(N, B, batch)

  def ours(products):
    @functools.cache  # Makes the model at the first call.
    def make():
      scored, params = experiment(H, T, products)
      params = jax.device_put(params, sharding.replicated(mesh))
      return functools.partial(examiner(scored, mesh), params, batches)

    return lambda: make()()

  model = torch_model(H)

  @torch.inference_mode()
  def theirs():
    for ids_BT in ids_NBT:
      ids = torch.from_numpy(ids_BT).long()
      logits, _ = model(ids[:, :-1])
      torch.nn.functional.cross_entropy(
        logits.reshape(-1, V), ids[:, 1:].reshape(-1)
      ).item()

  every = keras_model(H, sequences=True)

  def predict():
    logits = every.predict(
      ids_NBT[..., :-1].reshape(-1, T), verbose=0, batch_size=B
    )
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = ids_NBT[..., 1:].reshape(-1, T)
    np.take_along_axis(logs, targets[..., None], -1)

  count = N * B * T
  return {
    "seqrnn": (count, ours("float32")),
    "seqrnn, bfloat16": (count, ours("bfloat16")),
    **pytorch(count, theirs),
    "Keras on JAX": (count, predict),
  }


def measure(work: Work, rounds: int) -> speed_page.Row:
  """Measures in turn; returns a row, with the seconds of one symbol.

  Types that the CPU does not have are left out, as in compare.py.
  """
  first = {}
  for name, timed in work.items():
    try:
      first[name] = _seconds(*timed)
    except RuntimeError:  # Of XLA or PyTorch.
      if "bfloat16" not in name:
        raise
      print(f"  {name}: does not run here", file=sys.stderr)
  left_out = speed_page.slower(first)
  times = {name: [] for name in first if name not in left_out}
  for _ in range(rounds):
    for name, seconds in times.items():
      seconds.append(_seconds(*work[name]))
  return {"symbols": 1, "seconds": times}


def _seconds(count: int, once: Callable[[], Any]) -> float:
  """Returns the seconds of a symbol, after one that is not measured."""
  time.sleep(0.3)  # The threads of the previous library may still spin.
  once()  # See compare.py about pages.
  begin = time.perf_counter()
  once()
  return float(f"{(time.perf_counter() - begin) / count:.4g}")


def size_rows(H: int, rounds: int) -> Iterator[tuple[str, speed_page.Row]]:
  """Yields the rows of a hidden size, with their names."""
  from seqrnn.config import derived
  from seqrnn.configs import base
  from seqrnn.runtime import devices, launch

  config = base.get_config()
  config.model.hidden_size = H
  config = derived.merge(config, cores=devices.cores())
  launch.configure_device(config.train.cpu_devices, config.train.cpu_threads)
  for n in (1, 64):
    yield f"sampling, 2x{H}, {n} at once", measure(sampling(H, n), rounds)
  yield f"scoring, 2x{H}", measure(scoring(H), rounds)


def _measured(rounds: int) -> Iterator[tuple[str, speed_page.Row]]:
  """Measures all sizes, each in a new process, which prints a row a line."""
  # run.py sets the same for itself.
  environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
  for size in SIZES:
    command = [sys.executable, __file__, f"--part={size}", f"--rounds={rounds}"]
    with subprocess.Popen(
      command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
      for line in process.stdout or ():
        if line.startswith("["):  # Keras may print other lines.
          yield json.loads(line)
    if process.returncode:
      raise subprocess.CalledProcessError(process.returncode, command)


def rows(rounds: int) -> dict[str, speed_page.Row]:
  """Measures all sizes; prints the tables of each row."""
  return speed_page.printed("inference", _measured(rounds))


def main():
  """Prints the tables of each row, and at the end those of all."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--part", choices=SIZES, help="as JSON")
  arguments = parser.parse_args()
  refuse_missing(parser, "keras", "torch")
  if arguments.part:
    for row in size_rows(int(arguments.part), arguments.rounds):
      print(json.dumps(row), flush=True)
  else:
    print(speed_page.part("inference", {"rows": rows(arguments.rounds)}))


if __name__ == "__main__":
  main()
