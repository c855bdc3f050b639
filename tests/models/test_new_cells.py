"""A cell without a recurrent matrix, registered as CONTRIBUTING shows it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from seqrnn.models import cells, layers
from seqrnn.models.cell import save
from seqrnn.models.products import Products
from tests.models.test_cells import close, normal, product, quick_jit
from tests.models.test_layers import check_gradients, scan
from tests.modes.test_describe import model_of, parts_of, value

B, T, D, H = 3, 6, 4, 5
# Padding at the end, on both sides, none.
MASK = np.array([[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [1] * 6], bool)


class IndRNN(cells.Cell):
  r"""h' = relu(x W + u * h + b), u a vector (Li et al. 2018)."""

  formula = "HD + 2H"
  recurrent_product = False

  def setup_gates(self, init):
    self.own = self.param("own", init, (self.hidden_size,))

  def gates(self, carry, z_BK, u_BK):
    return save(jax.nn.relu(z_BK + u_BK + self.own[None] * carry))


class Split(IndRNN):
  """The same with a bias outside the loop, and z and u by themselves."""

  additive = False
  recurrent_bias = None


def equations(p, h, x):
  z = product(p["input_kernel"], x) + p["own"] * h + p["bias"]
  return np.where(z.real > 0, z, 0)


@pytest.fixture
def registered(registrations):  # noqa: ARG001
  """`model.cell=indrnn`."""
  cells.register("indrnn")(IndRNN)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("cell", [IndRNN, Split])
def test_values_and_gradients_equal_the_equations(cell, reverse, fused):
  own = cell(H, products=Products(plain=not fused))
  module = layers.Recurrent(own, reverse=reverse)
  rng = np.random.default_rng(2)
  x, carry = rng.normal(size=(B, T, D)), rng.normal(size=(B, H))
  made = jax.eval_shape(module.init, jax.random.key(0), x, MASK, carry)
  params = normal(rng, made["params"])
  assert "recurrent_kernel" not in params["cell"]
  by_y, by_carry = rng.normal(size=(B, T, H)), rng.normal(size=(B, H))

  def total(apply, params, carry):
    new, y = apply(params, x, MASK, carry)
    return (y * by_y).sum() + (new * by_carry).sum()

  def ours(params, carry):
    return total(
      lambda params, *rest: module.apply({"params": params}, *rest),
      params,
      carry,
    )

  def theirs(params, carry):
    apply = lambda params, *rest: scan(
      equations, params, *rest, reverse=reverse
    )
    return total(apply, params, carry)

  found, gradients = quick_jit(jax.value_and_grad(ours, (0, 1)))(params, carry)
  close(found, theirs(params, carry))
  check_gradients(gradients, lambda tree: theirs(*tree), (params, carry))


@pytest.mark.usefixtures("registered")
def test_describe_counts_what_it_has():
  parts = parts_of({"model.cell": "indrnn"})
  assert [part.parameters for part in parts] == list(map(value, parts))
  assert parts[1].parameters == 5 * 5 + 2 * 5


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("scan", ["fused", "plain"])
def test_a_model_of_it_trains_by_both_scans(scan):
  experiment, config = model_of({"model.cell": "indrnn", "model.scan": scan})
  rng = np.random.default_rng(3)
  params = jax.tree.map(np.float32, normal(rng, shapes(experiment)))
  ids_BT = rng.integers(4, 11, (3, 4))
  batch = {
    "inputs": ids_BT,
    "targets": ids_BT,
    "weights": np.ones((3, 4), np.float32),
    "reset": np.ones(3, bool),
  }
  loss = lambda params: experiment.loss(params, (), batch, None)[0]
  gradients = quick_jit(jax.grad(loss))(params)
  own = gradients["body"]["layers_0"]["cell"]["own"]
  assert config.model.scan == scan and jnp.abs(own).max() > 0


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["weight_drop", "recurrent_dropout"])
def test_what_needs_a_recurrent_kernel_is_refused(name):
  with pytest.raises(UserError, match=f"model.{name}=0.5 .* has no recurrent"):
    model_of({"model.cell": "indrnn", f"model.{name}": 0.5})
