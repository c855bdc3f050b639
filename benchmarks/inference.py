"""Sampling and scoring of seqrnn against loops in PyTorch and Keras.

  pip install -e '.[bench]'
  python benchmarks/inference.py [--rounds=5]

sampling: two LSTM layers and a softmax over 65 symbols, one symbol after the
other. seqrnn: `sample`, as the mode does it. PyTorch: a loop over nn.LSTM with
one symbol a step, the state kept. Keras: `model.predict` on the last 40 symbols
for each next one, as the program that seqrnn follows has it; few symbols, since
each takes long.

scoring: the cross-entropy of one text of 100,000 symbols in windows of 100, 50
in a batch. seqrnn: as the mode `evaluate` does it. PyTorch: the same batches.
Keras: `model.predict` on them.

All libraries run in one process for each size, in turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import torch

import experiments
import run
from configs import base
from seqrnn import sharding
from seqrnn.data.vocabulary import END, Vocabulary
from seqrnn.data.windows import Batches
from seqrnn.evaluate import evaluator
from seqrnn.sample import generator

V, WINDOW = 65, 40


def experiment(H: int, window: int = WINDOW):
  """A language model and its parameters."""
  config = base.get_config()
  config.model.hidden_size = H
  config.model.embedding_size = H
  config.data.window = window
  names = tuple(f"w{n}" for n in range(V - 4))
  made = experiments.build(config, {"symbols": Vocabulary("word", names)})
  params = made.init(jax.random.key(0))
  # No text ends: sampling would stop there.
  bias_V = params["head"]["bias"]
  params["head"]["bias"] = bias_V.at[END].set(-1e9)
  return made, params


class Torch(torch.nn.Module):
  """The same model."""

  def __init__(self, H: int):
    super().__init__()
    self.embedding = torch.nn.Embedding(V, H)
    self.lstm = torch.nn.LSTM(H, H, 2, batch_first=True)
    self.head = torch.nn.Linear(H, V)

  def forward(self, ids_BT, state=None):
    """Logits_BTV and the state."""
    y, state = self.lstm(self.embedding(ids_BT), state)
    return self.head(y), state


def keras_model(H: int, sequences: bool):
  """The same model, for the last symbol alone or for all of them."""
  return keras.Sequential(
    [
      keras.layers.Embedding(V, H),
      keras.layers.LSTM(H, return_sequences=True),
      keras.layers.LSTM(H, return_sequences=sequences),
      keras.layers.Dense(V),
    ]
  )


def sampling(H: int, streams: int):
  """Of each name how many symbols, a function that draws them."""
  made, params = experiment(H)
  assert made.decoder is not None
  length = 6400 if H < 200 else 640
  generate = generator(made.decoder, length=length)
  prime_BP = np.full((streams, 1), 5, np.int32)

  def ours():
    for chunk in generate(params, prime_BP, 1.0, 0):
      assert len(chunk) == streams

  model = Torch(H).eval()

  @torch.inference_mode()
  def loop(count):
    ids_B1 = torch.full((streams, 1), 5)
    state = None
    for _ in range(count):
      logits_B1V, state = model(ids_B1, state)
      chances_BV = torch.softmax(logits_B1V[:, 0], -1)
      ids_B1 = torch.multinomial(chances_BV, 1)

  last = keras_model(H, sequences=False)

  def windows(count):
    rng = np.random.default_rng(0)
    ids_BT = np.full((streams, WINDOW), 5, np.int32)
    for _ in range(count):
      logits_BV = last.predict(ids_BT, verbose=0, batch_size=streams)
      noise_BV = rng.gumbel(size=logits_BV.shape)
      new_B1 = np.argmax(logits_BV + noise_BV, -1)[:, None]
      ids_BT = np.concatenate([ids_BT[:, 1:], new_B1], 1)

  steps = 400 if H < 200 else 40
  return {
    "seqrnn": (length * streams, ours),
    "PyTorch": (steps * streams, lambda: loop(steps)),
    "Keras": (10 * streams, lambda: windows(10)),
  }


def scoring(H: int):
  """Of each name how many symbols, a function that scores them."""
  T, B, N = 100, 50, 20
  made, params = experiment(H, T)
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
  evaluate = evaluator(made, mesh)
  params = jax.device_put(params, sharding.replicated(mesh))
  batches = Batches(N, B, batch)
  ours = lambda: evaluate(params, batches)

  model = Torch(H).eval()

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
    "seqrnn": (count, ours),
    "PyTorch": (count, theirs),
    "Keras": (count, predict),
  }


def rates(work, rounds: int) -> dict[str, float]:
  """Symbols a second of each library, the median of the rounds."""
  for _, once in work.values():
    once()
  found = {name: [] for name in work}
  for _ in range(rounds):
    for name, (count, once) in work.items():
      time.sleep(0.5)  # The threads of the one before may still spin.
      begin = time.perf_counter()
      once()
      found[name].append(count / (time.perf_counter() - begin))
  return {name: statistics.median(values) for name, values in found.items()}


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--hidden_size", type=int, help="only this one")
  given = parser.parse_args()
  if given.hidden_size is None:
    print("| symbols a second | seqrnn | PyTorch | Keras |")
    print("| --- | --- | --- | --- |", flush=True)
    for H in (128, 512):
      subprocess.run(
        [sys.executable, *sys.orig_argv[1:], f"--hidden_size={H}"], check=True
      )
    return
  H = given.hidden_size
  config = base.get_config()
  config.model.hidden_size = H
  run.require_device(run.cpu_devices(config))
  torch.set_num_threads(2)
  for streams in (1, 64):
    show(f"sampling, 2x{H}, {streams} at once", sampling(H, streams), given)
  show(f"scoring, 2x{H}", scoring(H), given)


def show(name: str, work, given: argparse.Namespace):
  """Prints a line of the table."""
  found = rates(work, given.rounds)
  ours = found.pop("seqrnn")
  cells = [f"{rate:,.0f} ({ours / rate:.1f}x)" for rate in found.values()]
  print(f"| {name} | {ours:,.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
  main()
