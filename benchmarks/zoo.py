"""Trains a model of the zoo again: python benchmarks/zoo.py code.

The model is trained as its config says, exported, rounded to bfloat16 and
evaluated. The files of seqrnn/zoo/NAME are replaced. On the same machine, with
the same versions, they are the same.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
from safetensors import safe_open

import seqrnn

ZOO = Path(seqrnn.__file__).parent / "zoo"
MODELS = {"code": "rnn", "surnames": "names"}  # Name -> the config.
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


def make(name: str, runs: Path) -> dict[str, float]:
  """Trains a model and writes its files; returns its figures on test.

  Args:
    name: of MODELS.
    runs: a folder for its runs.
  """
  run = seqrnn.train(MODELS[name], runs / "trained")
  export = seqrnn.export(run.workdir).parent
  tensors = export / "model.safetensors"
  round_tensors(tensors, runs / tensors.name)
  shutil.move(runs / tensors.name, tensors)
  figures = seqrnn.from_export(export, runs / "again").evaluate("test")
  lines = [f"- {key.replace('_', ' ')}: {x:.4f}" for key, x in figures.items()]
  card = (export / "MODEL_CARD.md").read_text()
  card = card.replace("has float32", "has bfloat16") + _BFLOAT16
  (export / "MODEL_CARD.md").write_text(card + "\n".join(lines) + "\n")
  target = ZOO / name
  target.mkdir(parents=True, exist_ok=True)
  for file in (*FILES, tensors.name):
    shutil.copy(export / file, target)
  shutil.copy(runs / "again" / "config.json", target)  # As a run has it.
  return figures


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as folder:
    for key, value in make(sys.argv[1], Path(folder)).items():
      print(f"{key}: {value:.4f}")
