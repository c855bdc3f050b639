"""Makes the pictures of the documentation: python -m docs.pictures.

Two models as `--mode=describe` draws them, for a vocabulary of 100 characters,
and how gradients fade on their way back through time.
"""

import argparse
import string
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import experiments
from configs import base
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.models import anatomy, diagram, network
from seqrnn.runtime import figures
from seqrnn.settings import config as config_lib

HERE = Path(__file__).parent
T, ROWS = 101, 16
# Fields of a layer, and the dashes of its curve.
CURVES = {
  "rnn_tanh": ({"model.cell": "rnn_tanh"}, (1, 1)),
  "lstm, forget_bias 0": ({"model.forget_bias": 0.0}, (3, 1)),
  "lstm, forget_bias 1": ({"model.forget_bias": 1.0}, (7, 1)),
  "lstm, forget_bias 3": ({"model.forget_bias": 3.0}, ()),
}


def model(name: str):
  """Draws the model of a config."""
  defaults = base.get_config()
  config = config_lib.read(HERE.parent / "configs" / f"{name}.py", defaults)
  symbols = Vocabulary("char", tuple(string.printable))
  experiment = experiments.build(config, {"symbols": symbols})
  rows, window = config.train.batch_size, config.data.window
  batch = {
    "inputs": np.ones((rows, window), np.int32),
    "reset": np.ones(rows, bool),
  }
  made = anatomy.anatomy(experiment, config, batch)
  title = f"configs/{name}.py"
  boxes = anatomy.picture(made, config)
  drawn = diagram.figure(title, boxes)
  path = HERE / "explanation" / f"{name}.svg"
  figures.save_svg(drawn, path, title, diagram.text(title, boxes))


def gradient_norms(fields: dict) -> np.ndarray:
  """How strongly the last output of a new layer depends on each input.

  Returns:
    by distance from 0, the norm of the gradient of a random projection of the
    last output with respect to the input there, as a share of that at 0; the
    mean over random sequences, [T].
  """
  config = base.get_config()
  config.update_from_flattened_dict(fields)
  layer = network.recurrent(config.model, False)
  H = config.model.hidden_size
  keys = jax.random.split(jax.random.key(0), 3)
  x_BTD = jax.random.normal(keys[0], (ROWS, T, H))
  random_BH = jax.random.normal(keys[1], (ROWS, H))
  mask_BT = jnp.ones((ROWS, T), bool)
  carry = layer.initial_carry(ROWS)
  params = layer.init(keys[2], x_BTD, mask_BT, carry)

  def last(x_BTD):
    _, h_BTH = layer.apply(params, x_BTD, mask_BT, carry)
    return jnp.sum(random_BH * h_BTH[:, -1])

  norm_BT = jnp.linalg.norm(jax.jit(jax.grad(last))(x_BTD), axis=-1)
  norm_T = np.asarray(jnp.mean(norm_BT, axis=0))[::-1]
  return norm_T / norm_T[0]


def gradients():
  """Draws the norms against the distance."""
  drawn = figures.create(6.5, 3.6)
  axes = drawn.add_subplot()
  said = []
  for name, (fields, dashes) in CURVES.items():
    norm_T = gradient_norms(fields)
    axes.plot(norm_T, label=name, color="black", dashes=dashes)
    shares = ", ".join(f"{norm_T[t]:.0e} at {t}" for t in (10, 20, 50))
    said.append(f"{name}: {shares}")
    print(said[-1])
  axes.set(
    xlabel="distance in symbols",
    ylabel="gradient, as a share of that at distance 0",
    yscale="log",
    ylim=(1e-12, 2),
    xlim=(0, T - 1),
  )
  figures.grid(axes)
  axes.legend(loc="upper right", bbox_to_anchor=(1, 0.93))  # Below the curve.
  title = "Gradients of a new layer's last output, by distance of the input"
  figures.save_svg(
    drawn, HERE / "explanation" / "gradients.svg", title, "; ".join(said)
  )


if __name__ == "__main__":
  argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
  model("rnn")
  model("brnn")
  gradients()
