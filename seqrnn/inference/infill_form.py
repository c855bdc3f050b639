"""What a gap may hold: any symbols, or what a pattern matches."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.inference.patterns.automaton import PatternError
from seqrnn.inference.patterns.table import DEAD, START, compile_pattern


class Form(NamedTuple):
  """An automaton over symbols; what stands in a gap begins at START.

  Attributes:
    next_SV: the state after a symbol; DEAD: no filling has it there.
    accepts_S: whether a filling may stop in a state.
    counts_RS: the number of ways to R more symbols with which a filling is
      complete, from 0 to the length of the longest gap.
  """

  next_SV: np.ndarray
  accepts_S: np.ndarray
  counts_RS: np.ndarray

  def count(self, lengths: list[int]) -> float:
    """The number of fillings with one of these lengths."""
    return float(self.counts_RS[lengths, START].sum())

  def fillings(self, length: int) -> np.ndarray:
    """All fillings of a length [N, length]."""
    ids_NG, state_N = np.empty((1, 0), np.int32), np.array([START])
    for left in reversed(range(length)):
      alive_S = self.counts_RS[left] > 0
      row_N, symbol_N = np.nonzero(alive_S[self.next_SV[state_N]])
      ids_NG = np.column_stack([ids_NG[row_N], symbol_N])
      state_N = self.next_SV[state_N[row_N], symbol_N]
    return ids_NG[:1] if length == 0 else ids_NG.astype(np.int32)

  def ahead(self, left_NT: np.ndarray) -> np.ndarray:
    """The states after each symbol from which its filling can be completed.

    Args:
      left_NT: the number of symbols of the filling after each symbol.

    Returns:
      bool [N, T, S].
    """
    return (self.counts_RS > 0)[left_NT]

  def before(self, left_NT: np.ndarray, ids_NT: np.ndarray) -> np.ndarray:
    """The states after each symbol that the given symbols after it complete.

    Args:
      left_NT: as in `ahead`.
      ids_NT: the symbols.

    Returns:
      bool [N, T, S].
    """
    ok_NTS = np.tile(self.accepts_S, (*left_NT.shape, 1))
    for t in reversed(range(left_NT.shape[1] - 1)):
      after_NS = self.next_SV[:, ids_NT[:, t + 1]].T
      found_NS = np.take_along_axis(ok_NTS[:, t + 1], after_NS, axis=1)
      inside_N1 = left_NT[:, t, None] > 0
      ok_NTS[:, t] = np.where(inside_N1, found_NS, self.accepts_S)
    return ok_NTS


def form(pattern: str | None, vocabulary: Vocabulary, longest: int) -> Form:
  """The form of gaps of up to `longest` symbols.

  Raises:
    UserError: the pattern is faulty or does not fit.
  """
  if pattern is None:
    next_SV = np.full((START + 1, len(vocabulary)), DEAD, np.int16)
    next_SV[START, UNKNOWN + 1 :] = START
    accepts_S = np.arange(START + 1) == START
  else:
    try:
      table = compile_pattern(pattern, vocabulary)
    except PatternError as error:
      raise UserError(f"config.predict.pattern={pattern!r}: {error}") from None
    next_SV = table.next_SV.astype(np.int32)
    next_SV[:, : UNKNOWN + 1] = DEAD
    accepts_S = table.accepts_S
  S = len(next_SV)
  pairs, ways = np.unique(
    (np.arange(S)[:, None] * S + next_SV)[:, UNKNOWN + 1 :], return_counts=True
  )
  ways[pairs % S == DEAD] = 0
  edges = csr_array((ways.astype(np.float64), (pairs // S, pairs % S)), (S, S))
  edges.eliminate_zeros()
  counts = [accepts_S.astype(np.float64)]
  with np.errstate(over="ignore"):
    for _ in range(longest):
      counts.append(edges @ counts[-1])
  return Form(next_SV, accepts_S, np.stack(counts))
