"""embed: writes the states of a layer: vectors of symbols or of texts."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.splits import Pieces, reader
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary, printable
from seqrnn.errors import visible
from seqrnn.experiment import Build, Experiment, Params
from seqrnn.modes import load_model, read_user_files
from seqrnn.runtime import files
from seqrnn.scoring import states
from seqrnn.scoring.states import LayerOfTexts, StateVectors

NAMES = ("states.npy", "states.csv")

TableColumns = dict[str, list[Any]]  # By name, each a value for each row.
# Vectors [rows, D] and the columns on each row, computed as they are read.
Blocks = Iterable[tuple[np.ndarray, TableColumns]]


def run(build: Build, config: Config, workdir: Path) -> Path:
  """Writes states.npy and states.csv; returns the path of the first.

  Raises:
    UserError: the task has no states, the model no such layer, or the data
      cannot be read.
  """
  experiment, params, _ = load_model(build, config, workdir, "embed")
  blocks = _vectors(experiment, params, config)
  with files.locked_results(workdir, "embed") as folder:
    count, width = write_vectors(folder, blocks)
  for name in NAMES:
    print(visible(str(workdir / name)))
  print(f"{count:,} vectors of {width} numbers")
  return workdir / NAMES[0]


def write_vectors(folder: Path, blocks: Blocks) -> tuple[int, int]:
  """Writes the array [count, D] and the table; returns count and D."""
  count, width = 0, 0

  def rows(array: IO[bytes]) -> Iterator[Iterable]:
    nonlocal count, width
    for rows_ND, columns in blocks:
      if not width:
        width = rows_ND.shape[1]
        _write_header(array, 0, width)
        yield columns
      array.write(rows_ND.astype("<f4", order="C").tobytes())
      yield from zip(*columns.values(), strict=True)
      count += len(rows_ND)

  with files.atomic_write(folder / NAMES[0], "wb") as array:
    files.write_csv(folder / NAMES[1], rows(array))
    array.seek(0)  # The header has the same size for any count.
    _write_header(array, count, width)
  return count, width


def _write_header(array: IO[bytes], *shape: int):
  header = {"descr": "<f4", "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(array, header)


def _vectors(experiment: Experiment, params: Params, config: Config) -> Blocks:
  """The vectors of `config.embed`."""
  settings, names = config.embed, experiment.vocabularies["symbols"]
  if settings.of == "vocabulary":
    table_VD = states.embedding(experiment, params)
    ids = [*range(len(table_VD))]
    columns: TableColumns = {"id": ids, "symbol": names.names(ids)}
    return [(table_VD, columns)]
  boundaries = config.data.boundaries
  if settings.path is None:
    pieces = reader(config)("test")
  else:
    field = "config.embed.path"
    pieces = read_user_files(field, settings.path, experiment, config)
  pieces = states.ended(experiment, pieces, boundaries)
  reading = LayerOfTexts(experiment, params, pieces, settings.layer)
  # Other texts do not name people or addresses.
  logs = config.data.unit in ("log", "session")
  masks = Redaction(config.detect.redact if logs else "")
  how = settings.of, settings.pooling, boundaries
  blocks = states.vectors(reading, *how)
  return ((x.vectors, _columns(x, pieces, names, masks)) for x in blocks)


def _columns(
  block: StateVectors, pieces: Pieces, names: Vocabulary, masks: Redaction
) -> TableColumns:
  """The columns of the table for the rows of a block.

  Args:
    block: the rows.
    pieces: the documents.
    names: the vocabulary of the symbols.
    masks: masks names and unknown lines of logs.
  """
  corpus = pieces.corpus
  documents = pieces.document[block.document].tolist()
  plain = lambda name: str(name).replace("\0", r"\x00")
  titles = [masks.name(str(corpus.names[j])) for j in documents]
  columns: TableColumns = {
    "text": block.document.tolist(),
    "name": list(map(plain, titles)),
  }
  if not len(block.ids):
    columns["symbols"] = block.position.tolist()
    if corpus.labels is not None:
      columns["label"] = [plain(corpus.labels[j]) for j in documents]
    return columns
  columns["position"] = block.position.tolist()
  columns["symbol"] = [
    printable(masks.text(symbol), names.unit) if i == UNKNOWN else name
    for i, name, symbol in zip(
      block.ids, names.names(block.ids), block.read, strict=True
    )
  ]
  return columns
