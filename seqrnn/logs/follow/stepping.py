"""The models' step over an event of each of one or many sessions.

A state is one vector: the carries of K models, each of which has read all
events but the last.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.experiment import Decoder
from seqrnn.logs.detect.detector import Ensemble, carry_of, event_scorer
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring.scorer import UNRANKED

_ROWS = (8, 64)  # Sessions that are advanced together, at most.

# A state, the event before, and the event to read.
Unread = tuple[np.ndarray, int, int]


@lru_cache(CACHED_FUNCTIONS)
def advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> tuple[np.ndarray, Callable[..., tuple[jax.Array, jax.Array]]]:
  """The state at the begin of a session, and a jitted function.

  The function is models, states_BS, ids_B2 -> states_BS, scores_B3X. Each row
  reads one event, the second of its ids.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """

  def head(params, carry, batch):
    carry, logits_BV = decoder.step(params, carry, batch["inputs"][:, 0])
    return carry, logits_BV[:, None]

  score, none_1X = event_scorer(head, 0), jnp.zeros((1, 1 + count), jnp.float32)
  start = carry_of(decoder.start, count)(1), none_1X, none_1X
  start_S, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], start))

  @partial(sharding.jit, mesh=mesh)
  def advance(models, states_BS, ids_B2):
    carry, highest_BX, unknown_BX = jax.vmap(unravel)(states_BS)
    batch = {"inputs": ids_B2[:, :1], "targets": ids_B2[:, 1:]}
    carry, values = score(models, carry, batch)
    nats_BX, rank_BX = (
      jnp.append(values[name], values[f"member_{name}"][:, 0], axis=-1)
      for name in ("nll", "rank")
    )
    highest_BX = jnp.maximum(highest_BX, nats_BX)
    unknown_BX += rank_BX == UNRANKED
    states = carry, highest_BX, unknown_BX
    states_BS = jax.vmap(lambda x: ravel_pytree(x)[0])(states)
    return states_BS, jnp.stack([nats_BX, *states[1:]], axis=1)

  return np.array(start_S), advance


class Stepper:
  """Advances the states of sessions on the CPU.

  To send one event to another device and to wait for its scores takes longer
  than the step.

  Attributes:
    begin_S: the state of a session before its first event.
  """

  def __init__(self, decoder: Decoder, models: Ensemble):
    mesh = sharding.one_device("cpu")
    # Through NumPy, because the type of an array keeps the mesh it was on.
    models = jax.tree.map(np.asarray, models)
    self._models = jax.device_put(models, mesh.devices.item())
    self.begin_S, self._advance = advancer(decoder, len(models.seen), mesh)

  def warm(self):
    """Compiles the program for a line; those for many load when they come."""
    self.read([(self.begin_S, UNKNOWN, UNKNOWN)])

  def read(
    self, sessions: Sequence[Unread]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads an event of each of several sessions; few shapes are compiled.

    Returns:
      of each the state after the event, and scores_3X by the mean prediction
      and by each of K models, X = 1 + K: the surprisal of the event in nats;
      the highest surprisal of the session so far; and the number of its events
      so far that are not in the vocabulary, or that the model has not seen in
      training.
    """
    results: list[tuple[np.ndarray, np.ndarray]] = []
    for first in range(0, len(sessions), _ROWS[-1]):
      some = sessions[first : first + _ROWS[-1]]
      rows = min(rows for rows in _ROWS if rows >= len(some))
      states = np.zeros((rows, len(self.begin_S)), np.float32)
      ids = np.zeros((rows, 2), np.int32)
      for b, (state_S, *pair) in enumerate(some):
        states[b], ids[b] = state_S, pair
      states, scores = map(np.asarray, self._advance(self._models, states, ids))
      # A copy, so that a state in use does not keep all others in memory.
      results += [(states[b].copy(), scores[b]) for b in range(len(some))]
    return results
