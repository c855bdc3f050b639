"""An LSTM by its equations, in NumPy and float64."""

import numpy as np
from scipy.special import expit


def lstm(cell, x_TD):
  """The states [T, H] of a layer; inputs are features, or ids [T]."""
  table = cell["input_kernel"]
  kernel = np.asarray(table.get("kernel", table.get("embedding")), np.float64)
  recurrent = np.asarray(cell["recurrent_kernel"], np.float64)
  h = c = np.zeros(len(recurrent))
  states = []
  for x in x_TD:
    z = (kernel[x] if "embedding" in table else x @ kernel) + cell["bias"]
    i, f, g, o = np.split(np.asarray(z + h @ recurrent, np.float64), 4)
    c = expit(f) * c + expit(i) * np.tanh(g)
    h = expit(o) * np.tanh(c)
    states.append(h)
  return np.array(states)


def tower(body, x, depth=1, reverse=False):
  """The states of the first `depth` layers of one direction."""
  for n in range(depth):
    x = x[::-1] if reverse else x
    x = lstm(body[f"layers_{n}"]["cell"], x)
    x = x[::-1] if reverse else x
  return x


def towers(body, ids, depth=1):
  """The states of both towers of a gap model, side by side."""
  ahead = tower(body["forward"]["tower"], ids, depth)
  back = tower(body["backward"]["tower"], ids, depth, reverse=True)
  return np.concatenate([ahead, back], axis=1)
