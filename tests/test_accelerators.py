"""Programs for GPUs and TPUs that are not here, as JAX exports them.

What XLA makes of them is tested with `-m ahead`, where libtpu is installed.
"""

from typing import Any

import pytest
from jax import export

from benchmarks import programs
from seqrnn import experiments
from tests import stablehlo
from tests.conftest import FUSED, tiny

# More than a product with one-hot vectors takes.
WORDS = [f"w{n}" for n in range(700)]
WIDE = {"data.unit": "word", "data.window": 8}
# Of each task, its files and the parts that only some models have.
TASKS = {
  "gap_model": {},
  "language_model": {
    "data.stateful": True,
    "model.layers": 2,
    "model.dropout": 0.1,
  },
  "polyphony": {"data.source": "chords", "data.validation_fraction": 0.2},
  "classification": {"data.format": "tab", "model.bidirectional": True},
  "regression": {
    "data.format": "tab",
    "model.embedding_size": 4,
    "model.convolution": 3,
    "model.pooling": "attention",
  },
  "tagging": {
    "data.format": "columns",
    "model.embedding_size": 4,
    "model.letters": 4,
    **WIDE,
  },
}
MODELS = (
  {"model.cell": "slstm"},
  {"model.cell": "lru", "model.layers": 2, "model.block": "residual"},
  {"model.cell": "gated_deltanet", "model.cell_heads": 2},
  {**WIDE, "model.tied": True, "model.embedding_size": 8},
)
PLAIN = {"model.scan": "plain"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  """A folder with a file of each format."""
  folder = tmp_path_factory.mktemp("texts")
  words = WORDS * 4
  lines = [" ".join(words[n : n + 20]) for n in range(0, len(words), 20)]
  (folder / "text").write_text("\n".join(lines))
  (folder / "tab").write_text(
    "".join(f"{n % 2}\t{line}\n" for n, line in enumerate(lines))
  )
  (folder / "columns").write_text(
    "".join(
      "".join(f"{word} {word[-1]}\n" for word in line.split()) + "\n"
      for line in lines
    )
  )
  return folder


def faults(texts, fields, platform, devices=1):
  """Exports the training step of a tiny config; yields its faults."""
  form = fields.get("data.format", "text")
  settings = {**FUSED, "train.batch_size": 4, **fields}
  if "data.source" not in fields:
    settings["data.path"] = str(texts / form)
  config = tiny(texts, settings)
  mesh: Any = stablehlo.mesh_of(platform, devices)
  made = programs.training(config, experiments.build(config, None), mesh)
  exported = export.export(made.function, platforms=[platform])(*made.args)
  text = str(exported.mlir_module())
  if exported.nr_devices != devices:
    yield f"{exported.nr_devices} devices"
  if set(stablehlo.products(text)) != {"HIGHEST"}:
    yield "a rounded product"
  # A TPU adds the rows of a table in their order; `plain` does what JAX does.
  if platform == "cuda" and fields.get("model.scan") != "plain":
    yield from ["a sum in no order"] * len(stablehlo.unordered_sums(text))
  if "LayoutConstraint" in text:
    yield "has a layout that only the CPU needs"


def test_training_steps(texts):
  cases = [
    *(
      ({"task": task, **TASKS.get(task, {})}, "cuda", 2)
      for task in experiments.TASKS
    ),
    *((model, "cuda", 1) for model in MODELS),
    (PLAIN, "tpu", 2),
  ]
  assert not [(case, fault) for case in cases for fault in faults(texts, *case)]
