"""The LSTM on one page, beside the network that a run trains."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import BEGIN, RESERVED
from tests.conftest import untrained

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorials" / "one_page.py"


def test_one_page_has_the_loss_gradients_and_sample_of_a_run(tmp_path):
  run = untrained(tmp_path, {"model.hidden_size": 12})
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
    both = jax.jit(
      lambda params: (
        jax.value_and_grad(loss)(params),
        (page["loss"](params, ids_T), page["gradient"](params, ids_T)),
      )
    )
    (expected, gradient), (ours, slopes) = both(exact)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    same = functools.partial(np.testing.assert_allclose, atol=1e-10)
    jax.tree.map(same, slopes, gradient)
  rounded = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
  prime = names.text(ids[1:])
  drawn = page["sample"](rounded, jnp.array(ids), 30).tolist()
  [text] = run._replace(params=rounded).sample(
    prime, temperature=0.0, length=30
  )
  assert text == prime + names.text(drawn)
