"""embed: writes the states of a layer: vectors of symbols or of texts."""

import contextlib
import csv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.sources.corpora import read_files
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary, printable
from seqrnn.errors import visible
from seqrnn.experiment import Experiment, Params, require, shapes
from seqrnn.runtime import files
from seqrnn.scoring import states
from seqrnn.scoring.states import Block, Reading
from seqrnn.training.checkpoint import restore_params

NAMES = ("states.npz", "states.csv")

Columns = dict[str, list[Any]]  # Of the table: name -> a value for each row.


class Vectors(NamedTuple):
  """Vectors that are computed as they are read.

  Attributes:
    count: the number of rows.
    blocks: the rows in parts: vectors [rows, D], and the columns on each row.
  """

  count: int
  blocks: Iterator[tuple[np.ndarray, Columns]]


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Path:
  """Writes states.npz and states.csv; returns the path.

  Raises:
    UserError: the task has no states, the model no such layer, the data cannot
      be read.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  require(experiment, "embed", config.task)
  params, _ = restore_params(
    workdir, config.checkpoint.step, shapes(experiment)
  )
  found = _vectors(experiment, params, config)
  path = workdir / NAMES[0]
  with (
    files.locked(workdir / ".embed.lock", "written to", wait=True),
    files.results(workdir, "embed", NAMES.__contains__) as folder,
  ):
    width = _write(folder / path.name, found)
  print(f"{visible(str(path))}: {found.count:,} vectors of {width} numbers")
  print(visible(str(path.with_suffix(".csv"))))
  return path


def _vectors(experiment: Experiment, params: Params, config: Config) -> Vectors:
  """The vectors that `config.embed` asks for."""
  settings, names = config.embed, experiment.vocabularies["symbols"]
  if settings.of == "vocabulary":
    table_VD = np.asarray(states.embedding(params))
    columns: Columns = {
      "id": list(range(len(table_VD))),
      "symbol": names.names(range(len(table_VD))),
    }
    return Vectors(len(table_VD), iter([(table_VD, columns)]))
  boundaries = config.data.boundaries
  pieces = states.whole(experiment, _pieces(experiment, config), boundaries)
  reading = Reading(experiment, params, pieces, settings.layer)
  masks = redaction(config.detect.redact)
  # Others do not name people or addresses in a log.
  logs = masks if config.data.unit in ("log", "session") else None
  if settings.of == "texts":
    blocks = states.texts(reading, settings.pooling)
    count = len(pieces)
  else:
    blocks = states.symbols(reading, boundaries)
    count = states.count_symbols(reading)
  describe = _Describer(pieces, names, logs)
  return Vectors(
    count, ((block.vectors, describe.columns(block)) for block in blocks)
  )


def _pieces(experiment: Experiment, config: Config) -> Pieces:
  """The documents of the file or the split.

  Raises:
    UserError: they cannot be read.
  """
  settings = config.embed
  if settings.path is None:
    return splits.reader(config)("test")
  labels = experiment.labels
  known = None if labels is None else set(labels.symbols)
  return splits.whole(
    read_files("config.embed.path", settings.path, config.data, known)
  )


class _Describer(NamedTuple):
  """Says what each row of a block is.

  Attributes:
    pieces: the documents.
    names: the vocabulary of the symbols.
    masks: masks names and unknown lines of logs; None: nothing is masked.
  """

  pieces: Pieces
  names: Vocabulary
  masks: Redaction | None

  def columns(self, block: Block) -> Columns:
    """The columns of the table for the rows of a block."""
    corpus = self.pieces.corpus
    documents = self.pieces.document[block.document].tolist()
    named = [str(corpus.names[j]) for j in documents]
    if self.masks is not None:
      named = list(map(self.masks.name, named))
    columns: Columns = {
      "text": block.document.tolist(),
      "name": [name.replace("\0", r"\x00") for name in named],
    }
    if len(block.ids):
      columns["position"] = block.position.tolist()
      columns["symbol"] = [
        self._unknown(symbol) if i == UNKNOWN else name
        for i, name, symbol in zip(
          block.ids, self.names.names(block.ids), block.read, strict=True
        )
      ]
      return columns
    columns["symbols"] = block.position.tolist()
    if corpus.labels is not None:
      columns["label"] = [
        str(corpus.labels[j]).replace("\0", r"\x00") for j in documents
      ]
    return columns

  def _unknown(self, symbol: str) -> str:
    masked = symbol if self.masks is None else self.masks.text(symbol)
    return printable(masked, self.names.unit)


def _write(path: Path, found: Vectors) -> int:
  """Writes `vectors` [rows, D] and the table; returns D."""
  width, written = 0, 0
  with contextlib.ExitStack() as stack:
    enter = stack.enter_context
    table = enter(files.atomic_write(path.with_suffix(".csv")))
    writer = csv.writer(table, lineterminator="\n")
    archive = enter(files.atomic_write(path, "wb"))
    archive = enter(zipfile.ZipFile(archive, "w"))
    member: IO[bytes] | None = None
    for vectors, columns in found.blocks:
      if member is None:
        width = vectors.shape[1]
        member = enter(archive.open("vectors.npy", "w", force_zip64=True))
        header = {
          "descr": np.lib.format.dtype_to_descr(np.dtype("<f4")),
          "fortran_order": False,
          "shape": (found.count, width),
        }
        np.lib.format.write_array_header_1_0(member, header)
        writer.writerow(columns)
      member.write(vectors.astype("<f4", order="C").tobytes())
      writer.writerows(zip(*columns.values(), strict=True))
      written += len(vectors)
  assert written == found.count, "rows are counted before they are computed"
  return width
