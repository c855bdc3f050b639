"""The models' step over events that arrive, of one session or of many.

A state is one vector: the carries of K models, and the last event, which the
models have not read yet. A float32 holds ids and ranks up to 2**24.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from seqrnn.data.vocabulary import BEGIN, UNKNOWN
from seqrnn.experiment import Decoder
from seqrnn.logs.detect import detector
from seqrnn.logs.detect.detector import Ensemble
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import scoring

_ROWS = (8, 64)  # Sessions that are advanced together, at most.
_STEPS = 512  # Events of a session that are read together, at most.
_LOGITS = 2**22  # Of a compiled call, at most.


class Read(NamedTuple):
  """The scores of N events of a session.

  Attributes:
    nll: surprisal in nats by the mean prediction of the models [N].
    rank: 1 plus the number of likelier events [N].
    member_nll: surprisal in nats by each model [N, K].
  """

  nll: np.ndarray
  rank: np.ndarray
  member_nll: np.ndarray


@lru_cache(CACHED_FUNCTIONS)
def advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> tuple[np.ndarray, Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]]:
  """The state at the begin of a session, and a jitted function.

  The function is models, states_BS, events_BT, sizes_B -> states_BS, scores;
  the scores are those of `Read`, [B, T, ...]. Row b reads the first sizes_B[b]
  of its events. The models compute one after the other, each for all rows.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """
  start = jax.tree.map(lambda x: jnp.stack([x] * count), decoder.start(1))
  start_S, unravel = ravel_pytree((start, jnp.full(1, BEGIN, jnp.float32)))

  @partial(sharding.jit, mesh=mesh)
  def advance(models, states_BS, events_BT, sizes_B):
    B, T = events_BT.shape
    carries, last_B1 = jax.vmap(unravel)(states_BS)
    carries = jax.tree.map(lambda x: jnp.moveaxis(x[:, :, 0], 1, 0), carries)
    last_B1 = last_B1.astype(jnp.int32)
    inputs_BT = jnp.concatenate([last_B1, events_BT[:, :-1]], axis=1)
    read_TB = jnp.arange(T)[:, None] < sizes_B[None]

    def one(total_TBV, member):
      params, seen_V, carry = member
      known = lambda ids: jnp.where(seen_V[ids], ids, UNKNOWN).T

      def step(carry, row):
        input_B, read_B = row
        new, logits_BV = decoder.step(params, carry, input_B)
        select = lambda a, b: jnp.where(
          jnp.expand_dims(read_B, tuple(range(1, a.ndim))), a, b
        )
        return jax.tree.map(select, new, carry), logits_BV

      rows = known(inputs_BT), read_TB
      carry, logits_TBV = jax.lax.scan(step, carry, rows)
      scores = scoring.target_scores(logits_TBV, known(events_BT))
      total_TBV = total_TBV + jax.nn.softmax(logits_TBV)
      return total_TBV, (carry, scores["nll"].T)

    nothing_TBV = jnp.zeros((T, B, models.seen.shape[1]))
    members = models.params, models.seen, carries
    total_TBV, (carries, nll_KBT) = jax.lax.scan(one, nothing_TBV, members)
    mean_TBV = detector.mean_logits(total_TBV, count)
    scores = scoring.target_scores(mean_TBV, events_BT.T)
    scores = scores["nll"].T, scores["rank"].T, jnp.moveaxis(nll_KBT, 0, -1)
    place_B1 = jnp.maximum(sizes_B - 1, 0)[:, None]
    end_B1 = jnp.take_along_axis(events_BT, place_B1, axis=1)
    end_B1 = jnp.where(sizes_B[:, None] > 0, end_B1, last_B1)
    carries = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1)[:, :, None], carries)
    states = carries, end_B1.astype(jnp.float32)
    return jax.vmap(lambda x: ravel_pytree(x)[0])(states), scores

  return np.array(start_S), advance


class Stepper:
  """Advances the states of sessions on the CPU.

  To send one event to another device and to wait for its scores takes longer
  than the step.

  Attributes:
    begin_S: the state of a session before its first event.
  """

  def __init__(self, decoder: Decoder, models: Ensemble):
    mesh = sharding.one_cpu()
    # By way of NumPy: the type of an array keeps the mesh it was once on.
    models = jax.tree.map(np.asarray, models)
    self._models = jax.device_put(models, mesh.devices.item())
    count, symbols = models.seen.shape
    self.begin_S, self._advance = advancer(decoder, count, mesh)
    most = max(_LOGITS // (_ROWS[-1] * symbols), 1)
    self._steps = min(1 << (most.bit_length() - 1), _STEPS)

  def cut_S(self, event: int) -> np.ndarray:
    """The state after the first event of a session without its begin."""
    state_S = self.begin_S.copy()
    state_S[-1] = event
    return state_S

  def warm(self):
    """Compiles the programs for most numbers of sessions and events."""
    for count in _ROWS:
      for width in (1, 8, 64):
        self.read([(self.begin_S, [UNKNOWN] * width)] * count)

  def read(
    self, sessions: Sequence[tuple[np.ndarray, Sequence[int]]]
  ) -> list[tuple[np.ndarray, Read]]:
    """Reads events of several sessions.

    Args:
      sessions: of each the state, and its events, at least one.

    Returns:
      of each the state after its events, and the scores of these.
    """
    order = sorted(range(len(sessions)), key=lambda n: len(sessions[n][1]))
    results: dict[int, tuple[np.ndarray, Read]] = {}
    for first in range(0, len(order), _ROWS[-1]):
      some = order[first : first + _ROWS[-1]]
      rows = self._read([sessions[n] for n in some])
      results |= zip(some, rows, strict=True)
    return [results[n] for n in range(len(sessions))]

  def _read(
    self, sessions: Sequence[tuple[np.ndarray, Sequence[int]]]
  ) -> list[tuple[np.ndarray, Read]]:
    """Reads events of at most 64 sessions; few shapes are compiled."""
    rows = min(rows for rows in _ROWS if rows >= len(sessions))
    longest = max(len(events) for _, events in sessions)
    parts: list[list[np.ndarray]] = []
    states: Any = np.zeros((rows, len(self.begin_S)), np.float32)
    states[: len(sessions)] = [state_S for state_S, _ in sessions]
    begin = 0
    while begin < longest:
      width = 1  # A power of eight that has the events, if it is compiled.
      while width < longest - begin:
        width *= 8
      width = min(width, self._steps)
      ids = np.zeros((rows, width), np.int32)
      sizes = np.zeros(rows, np.int32)
      for b, (_, events) in enumerate(sessions):
        some = events[begin : begin + width]
        ids[b, : len(some)], sizes[b] = some, len(some)
      states, scores = self._advance(self._models, states, ids, sizes)
      parts.append([np.asarray(x) for x in scores])
      begin += width
    whole = [np.concatenate(xs, axis=1) for xs in zip(*parts, strict=True)]
    # Copies, so that a state in use does not keep all others in memory.
    copies = np.asarray(states)
    return [
      (copies[b].copy(), Read(*(x[b, : len(events)] for x in whole)))
      for b, (_, events) in enumerate(sessions)
    ]
