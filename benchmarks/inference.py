"""Compares sampling and scoring of seqrnn with loops in PyTorch and Keras.

  pip install -e '.[bench]'
  python benchmarks/inference.py [--rounds=5] [--data=hdfs_unique.tsv.gz]

sampling: two LSTM layers and a softmax over 65 symbols, symbol by symbol.
seqrnn: the function of the mode `sample`. PyTorch: a loop over nn.LSTM that
keeps the state. Keras: `model.predict` on the last 40 symbols for each symbol,
as in fluency03/sequence-rnn-py; it is slow, so it samples few symbols.

scoring: the cross-entropy of a text of 100,000 symbols in windows of 100, 50
windows a batch. seqrnn: the function of the mode `evaluate`. PyTorch: a loop
over the same batches. Keras: `model.predict` on the same batches.

For each size, all libraries run in one process and are measured in turn.

sessions: the surprisal of every event of about 18,000 distinct sessions, from
ids in memory to scores in memory, by `scoring.scorer` with two layers of 64
units. `plain`: in windows as long as the longest session, 64 rows a batch.
`figures`: also the rank and the entropy, which detection needs. Effective
events count a session as often as it occurs. `--data`: a file with the number
of occurrences, a tab and a session in each line; without it, sessions are
random.
"""

import argparse
import gzip
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from peers import refuse_missing

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("KERAS_BACKEND", "jax")

V, WINDOW = 65, 40


def experiment(H: int, window: int = WINDOW, products: str = "float32"):
  """Returns a language model and its parameters."""
  import jax

  import experiments
  from configs import base
  from seqrnn.data.vocabulary import END, Vocabulary

  config = base.get_config()
  config.model.products = products
  config.model.hidden_size = H
  config.model.embedding_size = H
  config.data.window = window
  names = tuple(f"w{n}" for n in range(V - 4))
  made = experiments.build(config, {"symbols": Vocabulary("word", names)})
  params = made.init(jax.random.key(0))
  # Without an end symbol, sampling does not stop early.
  bias_V = params["head"]["bias"]
  params["head"]["bias"] = bias_V.at[END].set(-1e9)
  return made, params


def torch_model(H: int):
  """Returns the same model in PyTorch."""
  import torch

  class Model(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.embedding = torch.nn.Embedding(V, H)
      self.lstm = torch.nn.LSTM(H, H, 2, batch_first=True)
      self.head = torch.nn.Linear(H, V)

    def forward(self, ids_BT, state=None):
      """Logits_BTV and the state."""
      y, state = self.lstm(self.embedding(ids_BT), state)
      return self.head(y), state

  return Model().eval()


def keras_model(H: int, sequences: bool):
  """Returns the same model in Keras, for the last symbol or for all."""
  import keras

  return keras.Sequential(
    [
      keras.layers.Embedding(V, H),
      keras.layers.LSTM(H, return_sequences=True),
      keras.layers.LSTM(H, return_sequences=sequences),
      keras.layers.Dense(V),
    ]
  )


def sampling(H: int, streams: int):
  """Returns library -> number of symbols, function that samples them."""
  import torch

  from seqrnn.inference.sampler import generator

  length = 6400 if H < 200 else 640
  prime_BP = np.full((streams, 1), 5, np.int32)

  def ours(products):
    made, params = experiment(H, products=products)
    assert made.decoder is not None
    generate = generator(made.decoder, length=length)

    def run():
      for chunk in generate(params, prime_BP, 0, 1.0):
        assert len(chunk) == streams

    return run

  model = torch_model(H)

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
    "seqrnn": (length * streams, ours("float32")),
    "seqrnn, bfloat16": (length * streams, ours("bfloat16")),
    "PyTorch": (steps * streams, lambda: loop(steps)),
    "Keras": (10 * streams, lambda: windows(10)),
  }


def scoring(H: int):
  """Returns library -> number of symbols, function that scores them."""
  import jax
  import torch

  from seqrnn.data.windows import Batches
  from seqrnn.inference.evaluation import evaluator
  from seqrnn.runtime import sharding

  T, B, N = 100, 50, 20
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
    made, params = experiment(H, T, products)
    evaluate = evaluator(made, mesh)
    params = jax.device_put(params, sharding.replicated(mesh))
    return lambda: evaluate(params, batches)

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
    "PyTorch": (count, theirs),
    "Keras": (count, predict),
  }


def read_sessions(path: str | None) -> list[tuple[list[str], int]]:
  """Returns distinct sessions and their counts, from a file or random."""
  if path is None:
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.lognormal(3.2, 0.4, 18_000).astype(int) + 2, 298)
    counts = np.minimum(rng.zipf(1.7, len(sizes)), 100_000).tolist()
    # Few events are frequent, as in logs.
    events = [np.minimum(rng.geometric(0.2, n), 28).tolist() for n in sizes]
    return [
      (list(map(str, some)), count)
      for some, count in zip(events, counts, strict=True)
    ]
  with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
    rows = [line.rstrip("\n").split("\t") for line in file]
  if not rows[0][-1].split()[-1].isdigit():  # Skip a header.
    del rows[0]
  return [(row[0].split(), sum(map(int, row[1:])) or 1) for row in rows]


def sessions(path: str | None):
  """Returns method -> distinct events, effective events, scoring function."""
  import jax

  import experiments
  from configs import base
  from seqrnn.data.documents import Document
  from seqrnn.data.vocabulary import Vocabulary
  from seqrnn.inference.scoring import ROWS, event_scorer, scorer
  from seqrnn.runtime import sharding

  found = read_sessions(path)
  names = sorted({event for events, _ in found for event in events})
  documents = [Document("", events, "") for events, _ in found]
  work = {}
  for name, buckets in (("plain", None), ("buckets", 8), ("figures", 8)):
    config = base.get_config()
    config.model.hidden_size = 64
    config.data.unit = "session"
    config.data.window = max(len(events) for events, _ in found) + 1
    config.data.buckets = buckets
    vocabulary = Vocabulary("session", tuple(names))
    made = experiments.build(config, {"symbols": vocabulary})
    batches = made.batches(documents, 0, batch_size=ROWS)
    made = made._replace(batches=lambda *_, batches=batches, **__: batches)
    params = made.init(jax.random.key(0))
    by = event_scorer(made.heads["forward"]) if name == "figures" else None
    score = scorer(made, sharding.mesh(), by)
    work[name] = lambda score=score, params=params: score(params, documents)
  sizes = [len(events) + 1 for events, _ in found]  # The end is an event.
  effective = sum(n * count for n, (_, count) in zip(sizes, found, strict=True))
  return sum(sizes), effective, work


def rates(work, rounds: int) -> dict[str, float]:
  """Returns symbols a second by library, the median of the rounds."""
  for _, once in work.values():
    once()
  found = {name: [] for name in work}
  for _ in range(rounds):
    for name, (count, once) in work.items():
      time.sleep(0.5)  # The threads of the previous library may still spin.
      begin = time.perf_counter()
      once()
      found[name].append(count / (time.perf_counter() - begin))
  return {name: statistics.median(values) for name, values in found.items()}


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--hidden_size", type=int, help="only this one")
  parser.add_argument("--data", help="sessions, one a line")
  given = parser.parse_args()
  refuse_missing(parser, "keras", "torch")
  if given.hidden_size is None:
    print("| symbols a second | seqrnn | seqrnn, bfloat16 | PyTorch | Keras |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for H in (128, 512):
      subprocess.run(
        [sys.executable, *sys.orig_argv[1:], f"--hidden_size={H}"], check=True
      )
    distinct, effective, work = sessions(given.data)
    work = {name: (distinct, once) for name, once in work.items()}
    print("| events a second | distinct | effective |")
    print("| --- | --- | --- |")
    for name, rate in rates(work, given.rounds).items():
      print(f"| {name} | {rate:,.0f} | {rate * effective / distinct:,.0f} |")
    return
  import torch

  from configs import base
  from seqrnn import command
  from seqrnn.runtime import launch

  H = given.hidden_size
  config = base.get_config()
  config.model.hidden_size = H
  launch.configure_device(command.cpu_devices(config))
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
