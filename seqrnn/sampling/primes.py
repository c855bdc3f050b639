"""Primes: the symbols or frames that a sample continues."""

import json
import re
import sys
from collections.abc import Sequence

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.read import music
from seqrnn.data.read.spelling import spelled
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, UNKNOWN, Vocabulary
from seqrnn.errors import UserError, listed
from seqrnn.runtime import files

_PRIME = 1024  # The smallest length to which a prime is padded.


def padded_prime(prime_BP: np.ndarray) -> np.ndarray:
  """A prime, padded to one of few lengths, as each compiles a program."""
  size = _PRIME
  while size < prime_BP.shape[1]:
    size *= 4
  padded_BP = np.zeros((len(prime_BP), size, *prime_BP.shape[2:]), np.int32)
  padded_BP[:, : prime_BP.shape[1]] = prime_BP
  return padded_BP


_LIMIT = 2**28  # Bytes of a file of prompts.


def prompts(path: str) -> list[tuple[str, str]]:
  """The lines of `sample.prompts`: their places, for errors, and their texts.

  Empty lines are prompts, too, but for JSON lines.

  Raises:
    UserError: the file cannot be read, or has no prompt.
  """
  name = f"config.sample.prompts={path!r}"
  try:
    text = files.read(path, _LIMIT).decode("utf-8-sig")
  except OSError as error:
    raise UserError(f"{name}: cannot be read: {error.strerror}") from None
  except UnicodeDecodeError as error:
    raise UserError(f"{name}: byte {error.start} is not UTF-8") from None
  lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
  found = [(f"{path}:{n}: prime", s) for n, s in enumerate(lines, 1)]
  if path.endswith(".jsonl"):
    found = [(where, _of_json(where, s)) for where, s in found if s.strip()]
  if not text or not found:
    raise UserError(f"{name}: must have at least one prompt")
  return found


def _of_json(where: str, line: str) -> str:
  try:
    prime = json.loads(line)["prime"]
    prime.encode()  # Half of a surrogate pair is no text.
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise UserError(f"{where}: must be a text in a JSON object") from None
  return prime


def aligned(rows: Sequence[np.ndarray]) -> np.ndarray:
  """Ids [B, P] of primes of several lengths, padded at the start."""
  P = max(map(len, rows))
  return np.stack([np.pad(row, (P - len(row), 0)) for row in rows])


def start_ids(symbols: Vocabulary, data: Config, prime: str) -> np.ndarray:
  """The ids before a prime, which are no part of a text.

  It is the begin symbol with `data.boundaries`. A model of one document, whose
  only begin it knows, has the line break `symbols.begin` in its place; so has,
  without a prime, a model without `data.boundaries`.
  """
  if symbols.begin and (data.boundaries or not prime):
    return symbols.encode([symbols.begin])
  begins = data.boundaries and (prime or symbols.begin is None)
  return np.array([BEGIN] if begins else [], np.int32)


def prime_ids(
  symbols: Vocabulary,
  prime: str,
  data: Config,
  streams: int,
  seed: int,
  where: str = "config.sample.prime",
) -> tuple[np.ndarray, list[str]]:
  """The ids [B, P] that a text continues, and the prime's unknown symbols.

  Without `start_ids` and prime, each stream starts from a random symbol.

  Raises:
    UserError: the prime is not one sequence; each line is a session.
  """
  documents = from_text(prime, symbols.unit) if prime else []
  if prime and len(documents) != 1:
    raise UserError(
      f"{where}={prime!r}: has {len(documents)} sequences of"
      f" data.unit={symbols.unit}; a sample continues one sequence"
    )
  tokens = spelled(documents[0].symbols if documents else "", data)
  start = start_ids(symbols, data, prime)
  ids = np.concatenate([start, symbols.encode(tokens)])
  if len(ids):
    return np.tile(ids, (streams, 1)), symbols.unknown(tokens)
  rng = np.random.default_rng(seed)
  drawn = rng.integers(UNKNOWN + 1, len(symbols), (streams, 1), np.int32)
  return drawn, []


def prime_frames(data: Config, prime: str) -> np.ndarray:
  """The notes [frames, V] that music continues; without prime, a silent frame.

  Raises:
    UserError: there is no such piece in the test split.
  """
  if not prime:
    return np.zeros((1, music.NOTES), np.uint8)
  pieces = music.read(data)["test"]
  match = re.fullmatch(r"([0-9]{1,9})(?::([1-9][0-9]{0,8}))?", prime)
  if not match or int(match[1]) >= len(pieces):
    raise UserError(
      f"config.sample.prime={prime!r}: must be a piece of the test split, 0 to"
      f" {len(pieces) - 1}, or the first frames of one, as 3:16"
    )
  return pieces[int(match[1])][: int(match[2]) if match[2] else None]


def report_unknown(unknown: list[str], where: str):
  """Prints a line on stderr with the symbols that a model does not know."""
  if unknown:
    print(f"{where}: read as unknown: {listed(unknown)}", file=sys.stderr)
