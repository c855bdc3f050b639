"""The models' step over events that arrive, of one session or of many.

A state is one vector: the carries of K models, each of which has read all
events but the last.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

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
_STEPS = 8  # Events of a session that are read together, at most.
_LOGITS = 2**22  # The most logits of a compiled call.

# A state, and the event before and the events to read.
Unread = tuple[np.ndarray, Sequence[int]]


@lru_cache(CACHED_FUNCTIONS)
def advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> tuple[np.ndarray, Callable[..., tuple[jax.Array, jax.Array]]]:
  """The state at the begin of a session, and a jitted function.

  The function is models, states_BS, ids_BT, sizes_B -> states_BS, scores_BT3X
  of T - 1 events. Row b reads the first sizes_B[b] of the events after its
  first one, which is the event before.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """

  def head(params, carry, batch):
    def step(carry, row):
      input_B, read_B = row
      new, logits_BV = decoder.step(params, carry, input_B)
      select = lambda a, b: jnp.where(
        jnp.expand_dims(read_B, tuple(range(1, a.ndim))), a, b
      )
      return jax.tree.map(select, new, carry), logits_BV

    rows = batch["inputs"].T, batch["read"].T
    carry, logits_TBV = jax.lax.scan(step, carry, rows)
    return carry, jnp.moveaxis(logits_TBV, 0, 1)

  score, none_1X = event_scorer(head, 0), jnp.zeros((1, 1 + count), jnp.float32)
  start = carry_of(decoder.start, count)(1), none_1X, none_1X
  start_S, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], start))

  @partial(sharding.jit, mesh=mesh)
  def advance(models, states_BS, ids_BT, sizes_B):
    carry, highest_BX, unknown_BX = jax.vmap(unravel)(states_BS)
    read_BT = jnp.arange(ids_BT.shape[1] - 1)[None] < sizes_B[:, None]
    batch = {"inputs": ids_BT[:, :-1], "targets": ids_BT[:, 1:]}
    carry, values = score(models, carry, {**batch, "read": read_BT})
    nats_BTX, rank_BTX = (
      jnp.append(values[name][..., None], values[f"member_{name}"], axis=-1)
      for name in ("nll", "rank")
    )
    read_BT1 = read_BT[..., None]
    highest_BTX = jax.lax.cummax(jnp.where(read_BT1, nats_BTX, 0), axis=1)
    highest_BTX = jnp.maximum(highest_BTX, highest_BX[:, None])
    unknown_BTX = jnp.cumsum((rank_BTX == UNRANKED) & read_BT1, axis=1)
    unknown_BTX = unknown_BX[:, None] + unknown_BTX
    states = carry, highest_BTX[:, -1], unknown_BTX[:, -1]
    states_BS = jax.vmap(lambda x: ravel_pytree(x)[0])(states)
    return states_BS, jnp.stack([nats_BTX, highest_BTX, unknown_BTX], axis=2)

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
    count, symbols = models.seen.shape
    self.begin_S, self._advance = advancer(decoder, count, mesh)
    self._steps = _STEPS if _ROWS[-1] * _STEPS * symbols <= _LOGITS else 1

  def warm(self):
    """Compiles the program for a line; those for many load when they come."""
    self.read([(self.begin_S, [UNKNOWN] * 2)])

  def read(
    self, sessions: Sequence[Unread]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads events of several sessions.

    Args:
      sessions: of each the state, and the event before its events, of which
        there is at least one.

    Returns:
      of each the state after its events, and scores_T3X of its T events, by the
      mean prediction and by each of K models, X = 1 + K: their surprisals in
      nats; the highest surprisals of the session so far; and the numbers of its
      events so far that are not in the vocabulary, or that the model has not
      seen in training.
    """
    order = sorted(range(len(sessions)), key=lambda n: len(sessions[n][1]))
    results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for first in range(0, len(order), _ROWS[-1]):
      some = order[first : first + _ROWS[-1]]
      rows = self._read([sessions[n] for n in some])
      results |= zip(some, rows, strict=True)
    return [results[n] for n in range(len(sessions))]

  def _read(
    self, sessions: Sequence[Unread]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads events of at most 64 sessions; few shapes are compiled."""
    rows = min(rows for rows in _ROWS if rows >= len(sessions))
    longest = max(len(ids) for _, ids in sessions) - 1
    parts: list[np.ndarray] = []
    states: Any = np.zeros((rows, len(self.begin_S)), np.float32)
    states[: len(sessions)] = [state_S for state_S, _ in sessions]
    begin = 0
    while begin < longest:
      width = self._steps if begin + 1 < longest else 1
      ids = np.zeros((rows, width + 1), np.int32)
      sizes = np.zeros(rows, np.int32)
      for b, (_, events) in enumerate(sessions):
        some = events[begin : begin + width + 1]
        ids[b, : len(some)], sizes[b] = some, max(len(some) - 1, 0)
      states, scores = self._advance(self._models, states, ids, sizes)
      parts.append(np.asarray(scores))
      begin += width
    scores, states = np.concatenate(parts, axis=1), np.asarray(states)
    # A copy, so that a state in use does not keep all others in memory.
    return [
      (states[b].copy(), scores[b, : len(ids) - 1])
      for b, (_, ids) in enumerate(sessions)
    ]
