"""An LSTM language model on one page, in plain jax.numpy.

With the parameters of a trained run it computes what the run computes: logits
of the next symbol, the loss, its gradient, and a sample.

  python docs/tutorials/one_page.py zoo:code 'import '
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

BEGIN = 1  # The id of the symbol before the first one of a text.


def step(params, carry, symbol):
  """One step: the memory (c, h) and a symbol's id -> memory, logits_V."""
  c_H, h_H = carry
  cell, head = params["body"]["layers_0"]["cell"], params["head"]
  # A symbol selects a row of W: the product of its one-hot vector with W.
  z_K = cell["input_kernel"]["embedding"][symbol]
  u_K = h_H @ cell["recurrent_kernel"] + cell["bias"]
  i_H, f_H, g_H, o_H = jnp.split(z_K + u_K, 4)
  c_H = jax.nn.sigmoid(f_H) * c_H + jax.nn.sigmoid(i_H) * jnp.tanh(g_H)
  h_H = jax.nn.sigmoid(o_H) * jnp.tanh(c_H)
  return (c_H, h_H), h_H @ head["kernel"] + head["bias"]


def initial_carry(params):
  """The memory before the first symbol: zeros."""
  H = len(params["head"]["kernel"])
  return jnp.zeros(H), jnp.zeros(H)


def loss(params, ids_T):
  """The mean surprisal, in nats, of each symbol given those before it."""
  read = partial(step, params)
  _, logits_TV = lax.scan(read, initial_carry(params), ids_T[:-1])
  log_p_TV = jax.nn.log_softmax(logits_TV)
  targets_T1 = ids_T[1:, None]
  return -jnp.mean(jnp.take_along_axis(log_p_TV, targets_T1, axis=1))


gradient = jax.grad(loss)


def sample(params, ids_T, length):
  """The ids after a text, each the most likely one (temperature 0)."""
  read = partial(step, params)
  carry, logits_TV = lax.scan(read, initial_carry(params), ids_T)

  def draw(state, _):
    carry, symbol = state
    carry, logits_V = step(params, carry, symbol)
    return (carry, jnp.argmax(logits_V)), symbol

  first = jnp.argmax(logits_TV[-1])
  return lax.scan(draw, (carry, first), length=length)[1]


if __name__ == "__main__":
  import seqrnn

  run = seqrnn.load(sys.argv[1])
  names = run.experiment.vocabularies["symbols"]
  ids_T = jnp.array([BEGIN, *names.encode(sys.argv[2])])
  print("loss", loss(run.params, ids_T), "nats a symbol")
  print(sys.argv[2] + names.text(sample(run.params, ids_T, 100)))
