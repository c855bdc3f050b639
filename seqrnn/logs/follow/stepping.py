"""The models' step over events that arrive, of one session or of many.

A state is one vector, because each argument and result of a compiled function
costs as much time as a small layer. It holds the carries of K models, the last
two events, the surprisal and rank of the last event by the mean prediction of
the models, and its surprisal by each of them. The models have not read the last
event yet. A float32 holds ids and ranks up to 2**24.
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
from seqrnn.logs.detect import ensemble
from seqrnn.logs.detect.ensemble import Ensemble
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import scoring

_ROWS = 64  # Sessions that are advanced together, at most.
_STEPS = 512  # Events of a session that are read together, at most.
_LOGITS = 2**22  # Of a compiled call, at most.
_FEW = 8  # Events that are read faster one by one.


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


def _layout(
  decoder: Decoder, count: int
) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
  """A state of zeros, and the function from a state to its parts."""
  one = decoder.start(1)
  carries = jax.tree.map(lambda x: jnp.stack([x] * count), one)
  return ravel_pytree((carries, jnp.zeros(2), jnp.zeros(2), jnp.zeros(count)))


@lru_cache(CACHED_FUNCTIONS)
def advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> tuple[np.ndarray, Callable[[Ensemble, np.ndarray], jax.Array]]:
  """The state at the begin of a session; a jitted models, state -> state.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """
  start_S, unravel = _layout(decoder, count)

  @partial(sharding.jit, mesh=mesh)
  def advance(models, state_S):
    carries, events_2, *_ = unravel(state_S)
    events = events_2.astype(jnp.int32)

    def step(params, seen_V, carry):
      before_1, event_1 = jnp.where(seen_V[events], events, UNKNOWN).reshape(
        2, 1
      )
      carry, logits_1V = decoder.step(params, carry, before_1)
      scores = scoring.target_scores(logits_1V, event_1)
      return carry, jax.nn.softmax(logits_1V), scores["nll"][0]

    members = models.params, models.seen, carries
    carries, chances_K1V, nll_K = jax.vmap(step)(*members)
    mean_1V = ensemble.mean_logits(chances_K1V.sum(axis=0), count)
    scores = scoring.target_scores(mean_1V, events[1:])
    scores_2 = jnp.concatenate(
      [scores["nll"], scores["rank"].astype(jnp.float32)]
    )
    shifted_2 = jnp.repeat(events_2[1:], 2)
    return ravel_pytree((carries, shifted_2, scores_2, nll_K))[0]

  begin_S = np.array(start_S)
  begin_S[-4 - count] = BEGIN
  return begin_S, advance


@lru_cache(CACHED_FUNCTIONS)
def many_advancer(
  decoder: Decoder, count: int, mesh: Mesh
) -> Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]:
  """A jitted models, states_BS, events_BT, sizes_B -> states_BS, scores.

  The scores are those of `Read`, [B, T, ...]. Row b reads the first sizes_B[b]
  of its events. The models compute one after the other, each for all rows.

  Args:
    decoder: of the models.
    count: K.
    mesh: of one device.
  """
  _, unravel = _layout(decoder, count)

  @partial(sharding.jit, mesh=mesh)
  def advance(models, states_BS, events_BT, sizes_B):
    B, T = events_BT.shape
    carries, events_B2, *_ = jax.vmap(unravel)(states_BS)
    carries = jax.tree.map(lambda x: jnp.moveaxis(x[:, :, 0], 1, 0), carries)
    last_B1 = events_B2[:, :1].astype(jnp.int32)
    inputs_BT = jnp.concatenate([last_B1, events_BT[:, :-1]], axis=1)
    read_TB = jnp.arange(T)[:, None] < sizes_B[None]

    def one(total_TBV, member):
      params, seen_V, carry = member
      known = lambda ids: jnp.where(seen_V[ids], ids, UNKNOWN).T

      def step(carry, row):
        input_B, read_B = row
        new, logits_BV = decoder.step(params, carry, input_B)
        kept = lambda a, b: jnp.where(
          jnp.expand_dims(read_B, tuple(range(1, a.ndim))), a, b
        )
        return jax.tree.map(kept, new, carry), logits_BV

      rows = known(inputs_BT), read_TB
      carry, logits_TBV = jax.lax.scan(step, carry, rows)
      scores = scoring.target_scores(logits_TBV, known(events_BT))
      total_TBV = total_TBV + jax.nn.softmax(logits_TBV)
      return total_TBV, (carry, scores["nll"].T)

    nothing_TBV = jnp.zeros((T, B, models.seen.shape[1]))
    members = models.params, models.seen, carries
    total_TBV, (carries, nll_KBT) = jax.lax.scan(one, nothing_TBV, members)
    mean_TBV = ensemble.mean_logits(total_TBV, count)
    scores = scoring.target_scores(mean_TBV, events_BT.T)
    found = scores["nll"].T, scores["rank"].T, jnp.moveaxis(nll_KBT, 0, -1)
    place_B1 = jnp.maximum(sizes_B - 1, 0)[:, None]
    end_B1 = jnp.take_along_axis(events_BT, place_B1, axis=1)
    end_B1 = jnp.where(sizes_B[:, None] > 0, end_B1, last_B1)
    carries = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1)[:, :, None], carries)
    shifted_B2 = jnp.repeat(end_B1.astype(jnp.float32), 2, axis=1)
    # The scores of the last event are in `found`.
    rest = shifted_B2, jnp.zeros((B, 2)), jnp.zeros((B, count))
    return jax.vmap(lambda x: ravel_pytree(x)[0])((carries, *rest)), found

  return advance


class Stepper:
  """Advances the states of sessions on the CPU.

  To send one event to another device and to wait for its scores takes longer
  than the step.

  Attributes:
    begin_S: the state of a session before its first event.
  """

  def __init__(self, decoder: Decoder, models: Ensemble):
    """Compiles the step over one event."""
    mesh = sharding.one_cpu()
    # By way of NumPy: the type of an array keeps the mesh it was once on.
    models = jax.tree.map(np.asarray, models)
    self._models = jax.device_put(models, mesh.devices.item())
    self._count, symbols = models.seen.shape
    self.begin_S, self._one = advancer(decoder, self._count, mesh)
    self._many = many_advancer(decoder, self._count, mesh)
    most = max(_LOGITS // (_ROWS * symbols), 1)
    self._steps = min(1 << (most.bit_length() - 1), _STEPS)
    self.step(self.begin_S, UNKNOWN)

  def cut_S(self, event: int) -> np.ndarray:
    """The state after the first event of a session without its begin."""
    state_S = self.begin_S.copy()
    state_S[-4 - self._count] = event
    return state_S

  def step(self, state_S: np.ndarray, event: int) -> np.ndarray:
    """The state after an event."""
    state_S = state_S.copy()
    state_S[-3 - self._count] = event
    return np.asarray(self._one(self._models, state_S))

  def warm(self):
    """Compiles what `read` needs for most numbers of sessions and events."""
    for count, width in ((9, 1), (8, 8), (9, 8), (8, 64), (9, 64)):
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
    sizes = [len(events) for _, events in sessions]
    if sum(sizes) <= _FEW:
      return [self._one_by_one(*session) for session in sessions]
    found: list[Any] = [None] * len(sizes)
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    for first in range(0, len(order), _ROWS):
      some = order[first : first + _ROWS]
      together = self._together([sessions[n] for n in some])
      for n, one in zip(some, together, strict=True):
        found[n] = one
    return found

  def _one_by_one(
    self, state_S: np.ndarray, events: Sequence[int]
  ) -> tuple[np.ndarray, Read]:
    rows = []
    for event in events:
      state_S = self.step(state_S, event)
      rows.append(state_S[-2 - self._count :])
    rows = np.stack(rows)
    return state_S, Read(rows[:, 0], rows[:, 1], rows[:, 2:])

  def _together(
    self, sessions: Sequence[tuple[np.ndarray, Sequence[int]]]
  ) -> list[tuple[np.ndarray, Read]]:
    """Reads events of at most _ROWS sessions; few shapes are compiled."""
    count = len(sessions)
    rows = 8 if count <= 8 else _ROWS
    longest = max(len(events) for _, events in sessions)
    parts: list[list[np.ndarray]] = []
    states: Any = np.zeros((rows, len(self.begin_S)), np.float32)
    states[:count] = [state_S for state_S, _ in sessions]
    begin = 0
    while begin < longest:
      width = min(_width(longest - begin), self._steps)
      ids = np.zeros((rows, width), np.int32)
      sizes = np.zeros(rows, np.int32)
      for b, (_, events) in enumerate(sessions):
        some = events[begin : begin + width]
        ids[b, : len(some)], sizes[b] = some, len(some)
      states, found = self._many(self._models, states, ids, sizes)
      parts.append([np.asarray(x) for x in found])
      begin += width
    whole = [np.concatenate(xs, axis=1) for xs in zip(*parts, strict=True)]
    # Copies, so that a state that is kept does not keep all others.
    copies = np.asarray(states)
    return [
      (copies[b].copy(), Read(*(x[b, : len(events)] for x in whole)))
      for b, (_, events) in enumerate(sessions)
    ]


def _width(size: int) -> int:
  """The power of eight that holds so many events."""
  width = 1
  while width < size:
    width *= 8
  return width
