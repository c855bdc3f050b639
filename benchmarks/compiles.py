"""How much of what a model writes is Python? The share that compiles.

  python benchmarks/compiles.py runs/rnn

Samples of a language model of the standard library, which go on from a prime
that is then cut off, and pieces of its test split that are as long, are cut in
the same way into blocks: a line that is not
indented and the lines below it that are. The first block, whose head is cut
off, and the last one, whose end is, are left out. `compile()` accepts a block
or does not.
"""

import argparse
import warnings

import numpy as np

from seqrnn.errors import UserError


def blocks(text: str) -> list[str]:
  """The whole blocks of a text."""
  found: list[list[str]] = []
  for line in text.split("\n"):
    if found and (not line.strip() or line[0].isspace()):
      found[-1].append(line)
    elif line.strip() and not line[0].isspace():
      found.append([line])
  return ["\n".join(lines) + "\n" for lines in found[1:-1]]


def compiles(block: str) -> bool:
  """Whether it is Python."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      compile(block, "block", "exec", dont_inherit=True)
  except (SyntaxError, ValueError):
    return False
  return True


def main():
  """Prints a table: what, blocks, lines a block, share that compiles."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("workdir")
  parser.add_argument("--texts", type=int, default=1024)
  parser.add_argument("--length", type=int, default=500)
  parser.add_argument("--prime", default="import os\nimport sys\n\n\n")
  parser.add_argument(
    "--temperature", type=float, nargs="*", default=[0.3, 0.5, 0.7, 1.0]
  )
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  import experiments  # It imports JAX.
  from seqrnn.data import splits

  try:
    run = experiments.load(arguments.workdir)
  except UserError as error:
    parser.error(str(error))

  pieces = splits.reader(run.config)("test")
  corpus = [document.symbols for document in pieces.documents()]
  rng = np.random.default_rng(arguments.seed)
  sizes = np.array([max(len(text) - arguments.length, 0) for text in corpus])
  pieces = []
  for place in rng.integers(sizes.sum(), size=arguments.texts):
    n = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
    start = int(place - sizes[:n].sum())
    pieces.append(corpus[n][start : start + arguments.length])

  rows = [("test split", pieces)]
  for temperature in arguments.temperature:
    texts = run.sample(
      arguments.prime,
      temperature=temperature,
      streams=arguments.texts,
      length=arguments.length,
      seed=arguments.seed,
    )
    made = [text.removeprefix(arguments.prime) for text in texts]
    rows.append((f"temperature {temperature:g}", made))
  print("| text | blocks | lines a block | compile |")
  print("| --- | --- | --- | --- |")
  for name, texts in rows:
    found = [block for text in texts for block in blocks(text)]
    lines = sum(block.count("\n") for block in found) / max(len(found), 1)
    share = sum(map(compiles, found)) / max(len(found), 1)
    print(f"| {name} | {len(found)} | {lines:.1f} | {share:.1%} |")


if __name__ == "__main__":
  main()
