"""Compares sampling and scoring of seqrnn with loops in PyTorch and Keras.

  pip install -e '.[bench]'
  python benchmarks/inference.py [--rounds=5]

sampling: two LSTM layers and a softmax over 65 symbols, symbol by symbol.
seqrnn: the function of the mode `sample`. PyTorch: a loop over nn.LSTM that
keeps the state, with the better of one and two threads; in bfloat16 with
autocast. Keras: `model.predict` on the last 40 symbols for each symbol, as in
fluency03/sequence-rnn-py; it is slow, so it samples few symbols.

sampling under a pattern: the same, where each symbol must fit an automaton of
200 states; `no pattern` is the row above, measured in turn. PyTorch: the loop
with the same table, from which it takes a mask and the next state.

scoring: the cross-entropy of a text in windows of 100, 50 windows a batch.
seqrnn: the function of the mode `evaluate`. PyTorch: a loop over the same
batches. Keras: `model.predict` on the same batches.

For each size, all libraries run in one process and are measured in turn.

sessions: the surprisal of every event of about 18,000 distinct sessions, from
ids in memory to scores in memory, by `scoring.scorer` with two layers of 64
units. `plain`: in windows as long as the longest session, 64 rows a batch.
`figures`: also the rank and the entropy, which detection needs. Effective
events count a session as often as it occurs.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import speed_page
from inference_models import (
  NAMES,
  WINDOW,
  V,
  Work,
  experiment,
  keras_model,
  pytorch,
  torch_model,
)
from peers import refuse_missing

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("KERAS_BACKEND", "jax")

PATTERN = "([a-zA-Z0-8]{100}[a-m]{50}[n-zA-C0-4]{50})*"  # 200 states.
SIZES = ("128", "512")


def sampling(H: int, streams: int, pattern: str | None = None) -> Work:
  """Returns the work of sampling; with a pattern, without Keras."""
  from seqrnn.sampling.patterns import compile_pattern, constraint
  from seqrnn.sampling.sampler import generator

  length = 6400 // min(streams, 4) if H < 200 else 640
  prime_BP = np.full((streams, 1), 5, np.int32)

  def ours(products, pattern=pattern):
    @functools.cache  # Makes the model at the first call.
    def make():
      model, params = experiment(H, products=products)
      assert model.decoder is not None
      applied = []
      if pattern:
        table = compile_pattern(pattern, model.vocabularies["symbols"])
        applied = [constraint(table, 2**30, 1.0, boundaries=True)]
      generate = generator(model.decoder, length=length, applied=applied)
      return functools.partial(generate, params, prime_BP, 0, 1.0)

    def run():
      for chunk in make()():
        assert len(chunk) == streams

    return run

  steps = 400 if H < 200 else 40
  work = {
    "seqrnn": (length * streams, ours("float32")),
    "seqrnn, bfloat16": (length * streams, ours("bfloat16")),
  }
  if pattern:
    plain = (length * streams, ours("float32", None))
    work["seqrnn, no pattern"] = plain
  work |= pytorch(steps * streams, torch_sampling(H, streams, steps, pattern))
  if not pattern:
    keras = keras_sampling(H, streams, 10)
    work["Keras on JAX"] = 10 * streams, keras
  return work


def torch_sampling(
  H: int, streams: int, count: int, pattern: str | None
) -> Callable[[], Any]:
  """Returns a loop in PyTorch."""
  import torch

  from seqrnn.data.vocabulary import Vocabulary
  from seqrnn.sampling.patterns import NEVER, START, compile_pattern

  model = torch_model(H)

  @torch.inference_mode()
  def plain():
    ids_B1 = torch.full((streams, 1), 5)
    state = None
    for _ in range(count):
      logits_B1V, state = model(ids_B1, state)
      chances_BV = torch.softmax(logits_B1V[:, 0], -1)
      ids_B1 = torch.multinomial(chances_BV, 1)

  if not pattern:
    return plain
  table = compile_pattern(pattern, Vocabulary("char", NAMES))
  next_SV = torch.from_numpy(table.next_SV.astype(np.int64))
  banned_SV = torch.from_numpy(table.need_SV == NEVER)

  @torch.inference_mode()
  def constrained():
    ids_B1 = torch.full((streams, 1), 5)
    state, place_B = None, torch.full((streams,), START)
    for _ in range(count):
      logits_B1V, state = model(ids_B1, state)
      logits_BV = logits_B1V[:, 0].masked_fill(banned_SV[place_B], -torch.inf)
      ids_B1 = torch.multinomial(torch.softmax(logits_BV, -1), 1)
      place_B = next_SV[place_B, ids_B1[:, 0]]

  return constrained


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
  from seqrnn.scoring.evaluation import evaluator

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
      return functools.partial(evaluator(scored, mesh), params, batches)

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


def random_sessions() -> list[tuple[list[str], int]]:
  """Returns distinct sessions and their counts."""
  rng = np.random.default_rng(0)
  sizes = np.minimum(rng.lognormal(3.2, 0.4, 18_000).astype(int) + 2, 298)
  counts = np.minimum(rng.zipf(1.7, len(sizes)), 100_000).tolist()
  # Few events are frequent, as in logs.
  events = [np.minimum(rng.geometric(0.2, n), 28).tolist() for n in sizes]
  return [
    (list(map(str, some)), count)
    for some, count in zip(events, counts, strict=True)
  ]


def sessions():
  """Returns distinct events, effective events, and functions that score."""
  import jax

  from seqrnn import experiments
  from seqrnn.configs import base
  from seqrnn.data.documents import Document
  from seqrnn.data.vocabulary import Vocabulary
  from seqrnn.runtime import sharding
  from seqrnn.scoring.scoring import ROWS, scorer, target_scores

  drawn = random_sessions()
  names = sorted({event for events, _ in drawn for event in events})
  documents = [Document("", events) for events, _ in drawn]
  work = {}
  for name, buckets in (("plain", None), ("buckets", 8), ("figures", 8)):
    config = base.get_config()
    config.model.hidden_size = 64
    config.data.unit = "session"
    config.data.window = max(len(events) for events, _ in drawn) + 1
    config.data.buckets = buckets
    vocabulary = Vocabulary("session", tuple(names))
    model = experiments.build(config, {"symbols": vocabulary})
    batches = model.batches(documents, 0, batch_size=ROWS)
    model = model._replace(batches=lambda *_, batches=batches, **__: batches)
    params = model.init(jax.random.key(0))

    def figures(params, carry, batch, head=model.heads["forward"]):
      carry, logits_BNV = head(params, carry, batch)
      return carry, target_scores(logits_BNV, batch["targets"])

    by = figures if name == "figures" else None
    score = scorer(model, sharding.mesh(), by)
    work[name] = lambda score=score, params=params: score(params, documents)
  sizes = [len(events) + 1 for events, _ in drawn]  # The end is an event.
  effective = sum(n * count for n, (_, count) in zip(sizes, drawn, strict=True))
  return sum(sizes), effective, work


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


def size_rows(H: int, rounds: int) -> dict[str, speed_page.Row]:
  """Returns the rows of a hidden size."""
  from seqrnn.config import resolve
  from seqrnn.configs import base
  from seqrnn.runtime import devices, launch

  config = base.get_config()
  config.model.hidden_size = H
  config, _ = resolve.resolve(config, resolve.Facts(cores=devices.cores()))
  launch.configure_device(config.train.cpu_devices, config.train.cpu_threads)
  rows_of_sizes = {
    f"sampling, 2x{H}, {streams} at once": measure(sampling(H, streams), rounds)
    for streams in (1, 64)
  }
  if H < 200:
    for streams in (1, 64):
      name = f"sampling under a pattern, 2x{H}, {streams} at once"
      rows_of_sizes[name] = measure(sampling(H, streams, PATTERN), rounds)
  return {**rows_of_sizes, f"scoring, 2x{H}": measure(scoring(H), rounds)}


def session_rows(rounds: int) -> dict[str, speed_page.Row]:
  """Returns the rows of sessions."""
  distinct, effective, work = sessions()
  row = measure({n: (distinct, once) for n, once in work.items()}, rounds)
  return {
    name: {
      "symbols": 1,
      "seconds": {speed_page.OURS: seconds},
      "repeats": effective / distinct,
    }
    for name, seconds in row["seconds"].items()
  }


def rows(part: str, rounds: int) -> dict[str, Any]:
  """Measures one of SIZES, or sessions, in a new process."""
  command = [sys.executable, __file__, f"--part={part}", f"--rounds={rounds}"]
  done = subprocess.run(
    command,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
    # run.py sets the same for itself.
    env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
  )
  return json.loads(done.stdout.splitlines()[-1])


def main():
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--part", choices=(*SIZES, "sessions"), help="as JSON")
  arguments = parser.parse_args()
  refuse_missing(parser, "keras", "torch")
  if arguments.part == "sessions":
    print(json.dumps(session_rows(arguments.rounds)))
  elif arguments.part:
    print(json.dumps(size_rows(int(arguments.part), arguments.rounds)))
  else:
    rows_of_sizes: dict[str, Any] = {}
    for size in SIZES:
      rows_of_sizes |= rows(size, arguments.rounds)
    print(speed_page.inference(rows_of_sizes), flush=True)
    scored = rows("sessions", arguments.rounds)
    print(f"\n{speed_page.sessions(scored)}")


if __name__ == "__main__":
  main()
