"""Trains a model of the zoo again: python benchmarks/zoo.py code.

The model is trained as its config says, exported, rounded to bfloat16 and
evaluated. The files of seqrnn/zoo/NAME are replaced. On the same machine, with
the same versions, they are the same.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp
from safetensors import safe_open

import seqrnn

ZOO = Path(seqrnn.__file__).parent / "zoo"
# Name -> the config; fields that differ.
MODELS: dict[str, tuple[str, dict]] = {
  "code": ("rnn", {}),
  "surnames": ("names", {}),
}
FILES = "vocabulary.json", "MODEL_CARD.md"
_BFLOAT16 = """\

## In the zoo

The tensors are rounded to bfloat16. On the test split, after rounding:

"""


def round_tensors(source: Path, target: Path):
  """Writes the tensors of a file in bfloat16, with its metadata."""
  with safe_open(source, "numpy") as file:
    header, parts = {"__metadata__": file.metadata()}, []
    for name in sorted(file.keys()):
      tensor = file.get_tensor(name)
      parts.append(tensor.astype(jnp.bfloat16).tobytes())
      end = sum(map(len, parts))
      header[name] = {
        "dtype": "BF16",
        "shape": tensor.shape,
        "data_offsets": [end - len(parts[-1]), end],
      }
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  target.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def make(name: str, runs: Path, zoo: Path) -> dict[str, float]:
  """Trains and writes a model; returns its figures on the test split.

  Args:
    name: of MODELS.
    runs: the folder of the run; a run that is there is resumed.
    zoo: the folder in which the folder of the model is written.
  """
  config, fields = MODELS[name]
  run = seqrnn.train(config, runs / name, **fields)
  export = seqrnn.export(run.workdir).parent
  rounded = runs / f"{name}-bfloat16"
  shutil.rmtree(rounded, ignore_errors=True)
  shutil.copytree(export, rounded)
  round_tensors(export / "model.safetensors", rounded / "model.safetensors")
  again = runs / f"{name}-again"
  shutil.rmtree(again, ignore_errors=True)
  figures = seqrnn.from_export(rounded, again).evaluate("test")
  target = zoo / name
  target.mkdir(parents=True, exist_ok=True)
  for file in (*FILES, "model.safetensors"):
    shutil.copy(rounded / file, target)
  shutil.copy(again / "config.json", target)  # As a run has it.
  lines = [f"- {key.replace('_', ' ')}: {x:.4f}" for key, x in figures.items()]
  card = (target / "MODEL_CARD.md").read_text()
  card = card.replace("has float32", "has bfloat16")
  (target / "MODEL_CARD.md").write_text(
    card + _BFLOAT16 + "\n".join(lines) + "\n"
  )
  return figures


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("name", choices=MODELS)
  parser.add_argument("--runs", type=Path, help="the folder of the run")
  parser.add_argument("--out", type=Path, default=ZOO, help="default: the zoo")
  arguments = parser.parse_args()
  folder = arguments.runs or Path(tempfile.mkdtemp(prefix="zoo-"))
  for key, value in make(arguments.name, folder, arguments.out).items():
    print(f"{key}: {value:.4f}")
