"""Trains a model of the zoo again.

  python benchmarks/zoo.py code

The model is trained as seqrnn/zoo/NAME/config.json says, rounded to bfloat16
and evaluated, and the files of seqrnn/zoo/NAME are replaced. On the same
machine, with the same versions, they are the same. A detection is not rounded:
its calibration is of these very parameters.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp
from safetensors import safe_open

import seqrnn
from seqrnn.exporting import tensors as tensors_lib

ZOO = Path(seqrnn.__file__).parent / "zoo"
FILE = "model.safetensors"
FILES = "config.json", "vocabulary.json"
_DETECTION = "calibration.npz", "left_out.npz", "detect/deployed.npz"
_FIGURES = "\n## In the zoo\n\nWith the tensors in {}, on the test split:\n\n"


def cast(source: Path, target: Path, dtype: str):
  """Writes the tensors of a file in another type, with its metadata."""
  with safe_open(source, "numpy") as file:
    names = list(file.keys())
    tensors = {x: file.get_tensor(x).astype(jnp.dtype(dtype)) for x in names}
    target.write_bytes(tensors_lib.encode(tensors, file.metadata()))


def make(name: str) -> dict[str, float]:
  """Trains a model and writes its files; returns its figures on test."""
  if name == "shop":
    import shop_log  # It is in the folder of this script.

    shop_log.main(["shop.log"])
  dtype = "float32" if name == "shop" else "bfloat16"
  run = seqrnn.train(ZOO / name / "config.json", name)
  if name == "shop":
    seqrnn.detect(workdir=name)
    (ZOO / name / "detect").mkdir(exist_ok=True)
    for file in _DETECTION:
      shutil.copy(run.workdir / file, ZOO / name / file)
  for workdir in (run.workdir, *run.workdir.glob("folds/*")):
    target = ZOO / name / workdir.relative_to(run.workdir)
    target.mkdir(parents=True, exist_ok=True)
    cast(seqrnn.export(workdir), target / FILE, dtype)
    for file in FILES:
      shutil.copy(workdir / file, target)
    fields = json.loads((target / "config.json").read_text())
    del fields["folder"]  # Of this machine.
    text = json.dumps(fields, indent=2) + "\n"
    (target / "config.json").write_text(text)
  figures = seqrnn.load(f"zoo:{name}").evaluate("test")
  lines = [f"- {key.replace('_', ' ')}: {x:.4f}" for key, x in figures.items()]
  card = (run.workdir / "export" / "MODEL_CARD.md").read_text()
  card = card.replace("has float32", f"has {dtype}") + _FIGURES.format(dtype)
  (ZOO / name / "MODEL_CARD.md").write_text(card + "\n".join(lines) + "\n")
  return figures


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("name", choices=sorted(p.name for p in ZOO.iterdir()))
  name = parser.parse_args().name
  with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)  # The runs are there.
    for key, value in make(name).items():
      print(f"{key}: {value:.4f}")
