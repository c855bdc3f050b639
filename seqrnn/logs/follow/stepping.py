"""The models' step over events that arrive, of one session or of many.

A state is one vector: the carries of K models, each of which has read all
events but the last.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.experiment import Decoder
from seqrnn.logs.detect import detector
from seqrnn.logs.detect.detector import Ensemble
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import scoring

_ROWS = (8, 64)  # Sessions that are advanced together, at most.
_STEPS = 512  # Events of a session that are read together, at most.
_LOGITS = 2**22  # Of a compiled call, at most.

# A state, and the event before and the events to read.
Unread = tuple[np.ndarray, Sequence[int]]


class Scored(NamedTuple):
  """The scores of an event, and those of its session up to it.

  Attributes:
    nats: surprisal by the mean prediction of the models.
    rank: 1 plus the number of likelier events.
    unknown: the number of events so far that are not in the vocabulary.
    nats_K: surprisal by each model.
    highest_K: the highest surprisal by each model so far.
    unknown_K: the number of events so far that each model has not seen.
  """

  nats: float
  rank: int
  unknown: int
  nats_K: list[float]
  highest_K: list[float]
  unknown_K: list[float]


@lru_cache(CACHED_FUNCTIONS)
def advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> tuple[np.ndarray, Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]]:
  """The state at the begin of a session, and a jitted function.

  The function is models, states_BS, ids_BT, sizes_B -> states_BS, scores; the
  scores are those of `Scored`, [B, T - 1, ...]. Row b reads the first
  sizes_B[b] of the events after its first one, which is the event before. The
  models compute one after the other, each for all rows.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """
  start = jax.tree.map(lambda x: jnp.stack([x[0]] * count), decoder.start(1))
  none_K = jnp.zeros(count, jnp.float32)
  start_S, unravel = ravel_pytree((start, none_K, none_K, none_K[:1]))

  @partial(sharding.jit, mesh=mesh)
  def advance(models, states_BS, ids_BT, sizes_B):
    inputs_TB, events_TB = ids_BT[:, :-1].T, ids_BT[:, 1:].T
    read_TB = jnp.arange(len(events_TB))[:, None] < sizes_B[None]

    def unknown_so_far(before_B, ids_TB):
      unknown_TB = (ids_TB == UNKNOWN) & read_TB
      return before_B[None] + jnp.cumsum(unknown_TB, axis=0)

    def one(total_TBV, member):
      params, seen_V, carry, highest_B, unknown_B = member
      known = lambda ids: jnp.where(seen_V[ids], ids, UNKNOWN)

      def step(carry, row):
        input_B, read_B = row
        new, logits_BV = decoder.step(params, carry, input_B)
        select = lambda a, b: jnp.where(
          jnp.expand_dims(read_B, tuple(range(1, a.ndim))), a, b
        )
        return jax.tree.map(select, new, carry), logits_BV

      rows = known(inputs_TB), read_TB
      carry, logits_TBV = jax.lax.scan(step, carry, rows)
      nats_TB, _ = _event_scores(logits_TBV, known(events_TB))
      highest_TB = jax.lax.cummax(jnp.where(read_TB, nats_TB, 0))
      highest_TB = jnp.maximum(highest_TB, highest_B[None])
      unknown_TB = unknown_so_far(unknown_B, known(events_TB))
      state = carry, highest_TB[-1], unknown_TB[-1]
      total_TBV = total_TBV + jax.nn.softmax(logits_TBV)
      return total_TBV, (state, (nats_TB, highest_TB, unknown_TB))

    nothing_TBV = jnp.zeros((*events_TB.shape, models.seen.shape[1]))
    *states, unknown_1B = jax.vmap(unravel, out_axes=1)(states_BS)
    members = models.params, models.seen, *states
    total_TBV, (states, by_member) = jax.lax.scan(one, nothing_TBV, members)
    mean_TBV = detector.mean_logits(total_TBV, count)
    unknown_TB = unknown_so_far(unknown_1B[0], events_TB)
    states = *states, unknown_TB[-1:]
    states_BS = jax.vmap(lambda x: ravel_pytree(x)[0], in_axes=1)(states)
    of_mean = *_event_scores(mean_TBV, events_TB), unknown_TB.astype(int)
    return states_BS, tuple(x.T for x in (*of_mean, *by_member))

  return np.array(start_S), advance


def _event_scores(
  logits_TBV: jax.Array, ids_TB: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Surprisals, those of unknown events at least UNKNOWN_NATS, and ranks."""
  scores = scoring.target_scores(logits_TBV, ids_TB)
  least_TB = jnp.where(ids_TB == UNKNOWN, detector.UNKNOWN_NATS, -jnp.inf)
  return jnp.maximum(scores["nll"], least_TB), scores["rank"]


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

  def warm(self):
    """Compiles the programs for most numbers of sessions and events."""
    for count in _ROWS:
      for width in (1, 8, 64):
        self.read([(self.begin_S, [UNKNOWN] * (width + 1))] * count)

  def read(
    self, sessions: Sequence[Unread]
  ) -> list[tuple[np.ndarray, list[Scored]]]:
    """Reads events of several sessions.

    Args:
      sessions: of each the state, and the event before its events, of which
        there is at least one.

    Returns:
      of each the state after its events, and the scores of these.
    """
    order = sorted(range(len(sessions)), key=lambda n: len(sessions[n][1]))
    results: dict[int, tuple[np.ndarray, list[Scored]]] = {}
    for first in range(0, len(order), _ROWS[-1]):
      some = order[first : first + _ROWS[-1]]
      rows = self._read([sessions[n] for n in some])
      results |= zip(some, rows, strict=True)
    return [results[n] for n in range(len(sessions))]

  def _read(
    self, sessions: Sequence[Unread]
  ) -> list[tuple[np.ndarray, list[Scored]]]:
    """Reads events of at most 64 sessions; few shapes are compiled."""
    rows = min(rows for rows in _ROWS if rows >= len(sessions))
    longest = max(len(ids) for _, ids in sessions) - 1
    parts: list[list[np.ndarray]] = []
    states: Any = np.zeros((rows, len(self.begin_S)), np.float32)
    states[: len(sessions)] = [state_S for state_S, _ in sessions]
    begin = 0
    while begin < longest:
      width = 1  # A power of eight that has the events, if it is compiled.
      while width < longest - begin:
        width *= 8
      width = min(width, self._steps)
      ids = np.zeros((rows, width + 1), np.int32)
      sizes = np.zeros(rows, np.int32)
      for b, (_, events) in enumerate(sessions):
        some = events[begin : begin + width + 1]
        ids[b, : len(some)], sizes[b] = some, max(len(some) - 1, 0)
      states, scores = self._advance(self._models, states, ids, sizes)
      parts.append([np.asarray(x) for x in scores])
      begin += width
    scores = [np.concatenate(xs, axis=1) for xs in zip(*parts, strict=True)]
    states, results = np.asarray(states), []
    for state_S, (_, ids), *columns in zip(states, sessions, *scores):  # noqa: B905
      events = [column[: len(ids) - 1].tolist() for column in columns]
      # A copy, so that a state in use does not keep all others in memory.
      results.append((state_S.copy(), list(map(Scored, *events))))
    return results
