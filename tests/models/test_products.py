"""Matrix products on every platform, and sums in the same order each time.

The programs are exported for platforms that are not here.
"""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from seqrnn import experiments
from seqrnn.models.products import Products, rows
from seqrnn.scoring.evaluation import totals_of
from seqrnn.scoring.predictions import decider
from seqrnn.training.step import make_start, make_step
from tests import stablehlo
from tests.conftest import FUSED, tiny
from tests.test_golden import FIELDS, write_data

MODELS = {
  "language_model": {},
  "gap_model": {},
  "classification": FIELDS["classification"],
  "polyphony": {},
  "letters": {
    "task": "tagging",
    "data.format": "columns",
    "data.unit": "word",
    "model.embedding_size": 4,
    "model.letters": 4,
  },
  "plain": {"task": "language_model", "model.scan": "plain"},
  "two products": {"task": "language_model", "model.cell": "mgu"},
}


def programs(folder, model, platform, **more):
  """Functions of the step, and of all else that a model computes."""
  fields = {"task": model, **MODELS[model], **more}
  path = write_data(fields["task"], folder / "data")
  if fields.get("data.format") == "columns":
    path = str(folder / "columns")
    Path(path).write_text("one A\ntwo B\nten A\n\n" * 40)
  settings = {**FUSED, "data.path": path, "train.batch_size": 4, **fields}
  config = tiny(folder, settings)
  experiment = experiments.build(config, None)
  batch = experiment.batches("train", 0)[0]
  mesh = stablehlo.mesh_of(platform)
  state = make_start(experiment, optax.sgd, batch, mesh).eval_shape(
    np.uint32(0)
  )
  step = make_step(experiment, optax.sgd, mesh)

  @jax.jit
  def use(params, batch):
    carry = experiment.carry(len(batch["inputs"]))
    results = [experiment.loss(params, carry, batch, None)]
    for head in (experiment.predict, *experiment.heads.values()):
      results.append(head(params, carry, batch))
    if experiment.labels is not None:
      decide = decider(experiment)
      totals = totals_of(experiment.loss, decide, experiment.gives)
      results.append(totals(params, carry, batch))
    if (decoder := experiment.decoder) is not None:
      first = decoder.start(len(batch["inputs"])), batch["inputs"][:, 0]
      results.append(decoder.step(params, *first))
    return results

  return (
    lambda: stablehlo.program(platform, step, state, batch, 0.1),
    lambda: stablehlo.program(platform, use, state.params, batch),
  )


def test_float32_is_exact_in_all_that_uses_a_model(tmp_path):
  """tests/test_accelerators.py looks at the training steps."""
  for model in MODELS:
    _, use = programs(tmp_path / model, model, "tpu")
    assert set(stablehlo.products(use())) == {"HIGHEST"}, model


def test_factors_are_rounded_as_the_config_says(tmp_path):
  for kind, platform, expected in (
    ("tf32", "cuda", "tf32"),
    ("tf32", "tpu", "HIGH"),
    ("bfloat16", "cuda", "bf16"),
    ("tf32", "cpu", "f32"),
  ):
    folder, rounded = tmp_path / f"{kind} {platform}", {"model.products": kind}
    step, _ = programs(folder, "language_model", platform, **rounded)
    # The gradient of a table is a sum: a product with a factor of 0 or 1.
    exact = "f32" if platform == "cpu" else "HIGHEST"
    assert set(stablehlo.products(step())) == {expected, exact}


@pytest.mark.parametrize(
  ("platform", "V"), [("cpu", 9), ("cuda", 9), ("cuda", 600), ("tpu", 600)]
)
def test_the_gradient_of_a_table_sums_the_rows_of_each_id(V, platform):
  rng = np.random.default_rng(0)
  table_VD = rng.normal(size=(V, 3)).astype(np.float32)
  gradient = jax.jit(
    lambda ids, d: jax.vjp(lambda table: rows(table, ids), table_VD)[1](d)[0]
  )
  for T, B, ids in [(1, 1, V), (9, 8, 2)]:
    ids_TB = rng.integers(0, ids, (T, B))
    d_TBD = rng.normal(size=(T, B, 3)).astype(np.float32)
    expected = np.zeros((V, 3))
    np.add.at(expected, ids_TB, d_TBD)
    with stablehlo.absent(platform, 2):
      summed = gradient(ids_TB, d_TBD)
    np.testing.assert_allclose(summed, expected, rtol=1e-5, atol=1e-5)
    program = stablehlo.program(platform, gradient, ids_TB, d_TBD)
    assert platform != "cuda" or stablehlo.unordered_sums(program) == []


def test_jax_adds_the_rows_of_a_table_in_any_order(tmp_path):
  """So `unordered_sums` finds what a GPU may add in another order."""
  step, _ = programs(tmp_path, "plain", "cuda")
  assert len(stablehlo.unordered_sums(step())) == 1


@pytest.mark.parametrize(("N", "plain"), [(512, False), (40, True)])
def test_tied_weights_have_rounded_gradients(N, plain):
  """XLA cannot run every product of rounded factors on a CPU."""
  rng = np.random.default_rng(0)
  y_NH = rng.normal(size=(N, 64)).astype(np.float32)
  table_VH = rng.normal(size=(200, 64)).astype(np.float32)
  d_NV = rng.normal(size=(N, 200)).astype(np.float32)
  products = Products("bfloat16", plain)

  @jax.jit
  def gradients(y_NH, table_VH, bias_V):
    def logits(y_NH, table_VH, bias_V):
      return products.affine(y_NH, products.transpose(table_VH), bias_V)

    return jax.vjp(logits, y_NH, table_VH, bias_V)[1](d_NV)

  # Over several devices, cpu.transpose keeps to XLA's own layouts.
  with jax.set_mesh(jax.make_mesh((1,), ("data",), (AxisType.Auto,))):
    got = gradients(y_NH, table_VH, np.zeros(200, np.float32))
  expected = d_NV @ table_VH, d_NV.T @ y_NH, d_NV.sum(0)
  for one, exact in zip(got, expected, strict=True):
    np.testing.assert_allclose(one, exact, atol=0.02 * np.abs(exact).max())
