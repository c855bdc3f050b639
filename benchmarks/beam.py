"""Compares a beam search with the most likely symbol at each step (greedy).

  python benchmarks/beam.py --workdir=runs/rnn [--width=8] [--texts=100]

Both continue the same random places of the test split. A text is better or
worse by the log-probability of its symbols under the model; equal texts count
as equal. The beam does not have the greedy text as a candidate, so it may find
a worse one.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LENGTHS = (20, 50, 100)
PRIME = 32  # Symbols before each place.


def primes(run, count: int) -> np.ndarray:
  """Random ids [count, PRIME] of the test split."""
  batches = run.experiment.batches("test", 0)
  rows = np.concatenate([batch["inputs"] for batch in batches])
  rows = rows[(rows[:, :PRIME] > 3).all(axis=1)]
  chosen = np.random.default_rng(0).choice(len(rows), count, replace=False)
  return rows[chosen, :PRIME].astype(np.int32)


def compare(run, prime_BP: np.ndarray, length: int, width: int) -> dict:
  """The numbers of better, equal and worse texts, and the mean gain in nats."""
  from seqrnn.inference import beam
  from seqrnn.inference.replay import log_probabilities
  from seqrnn.inference.sampler import generator

  decoder, params = run.experiment.decoder, run.params
  chunks = generator(decoder, length=length)(params, prime_BP, 0, 0.0)
  greedy_BT = np.concatenate([*chunks], axis=1)
  greedy_BT = np.pad(greedy_BT, [(0, 0), (0, length - greedy_BT.shape[1])])
  found_BWT, _ = beam.search(decoder, params, prime_BP, length, width)
  scores = [
    log_probabilities(decoder, params, prime_BP, texts_BT)[0].sum(1)
    for texts_BT in (greedy_BT, found_BWT[:, 0])
  ]
  equal_B = (greedy_BT == found_BWT[:, 0]).all(axis=1)
  gain_B = np.where(equal_B, 0, scores[1] - scores[0])
  return {
    "length": length,
    "better": int((gain_B > 0).sum()),
    "equal": int((gain_B == 0).sum()),
    "worse": int((gain_B < 0).sum()),
    "mean_gain_nats": round(float(gain_B.mean()), 3),
    "largest_loss_nats": round(max(0.0, -float(gain_B.min())), 3),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--width", type=int, default=8)
  parser.add_argument("--texts", type=int, default=100)
  args = parser.parse_args()
  import seqrnn

  run = seqrnn.load(args.workdir)
  prime_BP = primes(run, args.texts)
  for length in LENGTHS:
    found = compare(run, prime_BP, length, args.width)
    print(json.dumps({"width": args.width, **found}))


if __name__ == "__main__":
  main()
