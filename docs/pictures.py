"""Makes the pictures of the documentation: python -m docs.pictures.

Two models as `--mode=describe` draws them, for a vocabulary of 100 characters,
and how gradients fade on their way back through time. With `--run=WORKDIR`, a
run of configs/rnn.py: how a pattern leads a sample.
"""

import argparse
import string
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.patches import Rectangle

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data.vocabulary import BEGIN, Vocabulary
from seqrnn.models import network
from seqrnn.models.parts import part_sizes
from seqrnn.reporting import diagram
from seqrnn.run import Run, load_run
from seqrnn.runtime import pictures
from seqrnn.sampling.patterns import NEVER, START, compile_pattern

HERE = Path(__file__).parent
T, ROWS = 101, 16
PATTERN = r"def [a-z_]{3,12}\(self(, [a-z]+)?\):"
# Fields of a layer, and the dashes of its curve.
CURVES = {
  "rnn_tanh": ({"model.cell": "rnn_tanh"}, (1, 1)),
  "lstm, forget_bias 0": ({"model.forget_bias": 0.0}, (3, 1)),
  "lstm, forget_bias 1": ({"model.forget_bias": 1.0}, (7, 1)),
  "lstm, forget_bias 3": ({"model.forget_bias": 3.0}, ()),
}


def model(name: str):
  """Draws the model of a config."""
  config = config_lib.read_config(HERE.parent / "configs" / f"{name}.py")
  symbols = Vocabulary("char", tuple(string.printable))
  experiment = experiments.build(config, {"symbols": symbols})
  title = f"configs/{name}.py"
  parts = part_sizes(experiment, config)
  boxes = diagram.boxes(experiment, config, parts, pooled=False)
  drawn = diagram.draw(title, boxes)
  path = HERE / "explanation" / f"{name}.svg"
  described = "; then ".join(
    " and, beside it, ".join(", ".join(box) for box in row) for row in boxes
  )
  words = f"{title}. From the input to the output: {described}."
  path.write_text(pictures.svg(drawn, title, words), "utf-8")


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
  drawn = pictures.create(6.5, 3.6)
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
  pictures.grid(axes)
  axes.legend(loc="upper right", bbox_to_anchor=(1, 0.93))  # Below the curve.
  title = "Gradients of a new layer's last output, by distance of the input"
  path = HERE / "explanation" / "gradients.svg"
  path.write_text(pictures.svg(drawn, title, "; ".join(said)), "utf-8")


def led(run: Run) -> tuple[str, np.ndarray, np.ndarray]:
  """A sample under PATTERN, symbol by symbol.

  Returns:
    the text; the model's probability of each symbol [T, V]; whether the pattern
    allows it.
  """
  symbols = run.experiment.vocabularies["symbols"]
  decoder = run.experiment.decoder
  assert decoder is not None
  [text] = run.sample(pattern=PATTERN, length=len(PATTERN))
  table = compile_pattern(PATTERN, symbols)
  carry, symbol_B, state = decoder.start(1), np.array([BEGIN]), START
  chances, allowed = [], []
  for id in symbols.encode(str(text)):
    carry, logits_BV = decoder.step(run.params, carry, symbol_B)
    chances.append(np.asarray(jax.nn.softmax(logits_BV))[0])
    allowed.append(table.need_SV[state] < NEVER)
    symbol_B, state = np.array([id]), int(table.next_SV[state, id])
  return str(text), np.array(chances), np.array(allowed)


def pattern(run: Run):
  """Draws what the model would write, and what a pattern lets it write."""
  symbols = run.experiment.vocabularies["symbols"]
  text, chance_TV, allowed_TV = led(run)
  ids = symbols.encode(text)
  # Symbols that are written, then those that the model would have preferred.
  rows = np.array([*dict.fromkeys([*ids, *chance_TV.argmax(1)])])
  chance_RT, allowed_RT = chance_TV[:, rows].T, allowed_TV[:, rows].T
  width = max(6.5, 0.22 * len(text) + 1)
  drawn = pictures.create(width, 0.17 * len(rows) + 1)
  axes = drawn.add_subplot()
  colors = np.ones((*chance_RT.shape, 4))
  depth_RT = np.sqrt(chance_RT)[..., None]  # Small chances are seen, too.
  blue, grey = np.array([0.1, 0.35, 0.75]), np.array([0.55, 0.55, 0.55])
  colors[..., :3] = 1 - depth_RT * (
    1 - np.where(allowed_RT[..., None], blue, grey)
  )
  axes.imshow(colors, aspect="auto", interpolation="nearest")
  place = {row: y for y, row in enumerate(rows)}
  for t, id in enumerate(ids):
    y = place[id]
    axes.add_patch(Rectangle((t - 0.5, y - 0.5), 1, 1, fill=False, lw=1.2))
  mono = {"family": "monospace", "size": 8}
  axes.set_xticks(range(len(text)), list(text.replace(" ", "\u2423")), **mono)
  names = [name.replace(" ", "\u2423") for name in symbols.names(rows)]
  axes.set_yticks(range(len(rows)), names, **mono)
  axes.tick_params(length=0)
  axes.set_xlabel("the sample; a frame is the symbol that was drawn")
  pictures.save(drawn, HERE / "howto" / "pattern.png")
  mass_T = np.where(allowed_TV, chance_TV, 0).sum(1)
  mass = np.prod(mass_T)
  print(f"{text}: the model alone gives the allowed symbols {mass:.2e}")


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--run", help="the workdir of a run of configs/rnn.py")
  arguments = parser.parse_args()
  if arguments.run:
    pattern(load_run(arguments.run))
  model("rnn")
  model("brnn")
  gradients()
