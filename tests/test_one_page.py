"""The LSTM on one page, beside the network that a run trains."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import seqrnn
from seqrnn.data.vocabulary import BEGIN, RESERVED

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "one_page.py"


def test_one_page_has_the_loss_gradients_and_sample_of_a_run(trained):
  run = seqrnn.load(trained({"model.hidden_size": 12}))
  page = runpy.run_path(str(PAGE))
  random = np.random.default_rng(5)
  params = jax.tree.map(lambda x: 0.5 * random.normal(size=x.shape), run.params)
  params["head"]["bias"][: len(RESERVED)] = -50  # The page masks no symbol.
  names = run.experiment.vocabularies["symbols"]
  T = 40
  ids = [BEGIN, *random.integers(len(RESERVED), len(names), T)]
  with jax.enable_x64(True):
    exact, ids_T = jax.tree.map(jnp.array, params), jnp.array(ids)
    batch = {
      "inputs": ids_T[None, :-1],
      "targets": ids_T[None, 1:],
      "weights": jnp.ones((1, T)),
      "reset": jnp.ones(1, bool),
    }
    loss = lambda params: run.experiment.loss(
      params, run.experiment.carry(1), batch, None
    )[0]
    expected, gradient = jax.value_and_grad(loss)(exact)
    np.testing.assert_allclose(page["loss"](exact, ids_T), expected, rtol=1e-10)
    jax.tree.map(
      lambda ours, real: np.testing.assert_allclose(ours, real, atol=1e-10),
      page["gradient"](exact, ids_T),
      gradient,
    )
  rounded = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
  prime = names.text(ids[1:])
  drawn = page["sample"](rounded, jnp.array(ids), 30).tolist()
  [text] = run._replace(params=rounded).sample(
    prime, temperature=0.0, length=30
  )
  assert text == prime + names.text(drawn)
