"""The layout of a corpus in a file: arrays, a JSON object and a footer.

The JSON object has the fields of the corpus, with the place in the file of each
array. The footer has the size of the object and a checksum of the file.
"""

import json
import mmap
import os
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

from seqrnn.data.documents import Corpus, Names
from seqrnn.data.logs.cuts import Cuts
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Stored, Texts, stored

# A corpus, and the lines about it for stderr.
Made = tuple[Corpus, list[str]]

_SIZE = struct.Struct("<8sQ")  # Magic, bytes of the JSON object.
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"seqrnn\0\2"
_ALIGNED = 8  # Arrays start at multiples of these bytes.
# Classes of which the JSON object has the attributes.
_CLASSES = {
  Corpus: Corpus._fields,
  Texts: ("symbols", "ids"),
  Names: ("files", "firsts", "lines"),
  Cuts: Cuts._fields,
}


def write(made: Made, file: BinaryIO):
  """Writes a corpus and its lines to an empty file."""
  corpus, lines = made
  writer = _Writer(file)
  content = {"corpus": writer.place(corpus), "lines": lines}
  encoded = json.dumps(content).encode()
  writer.write(encoded)
  writer.write(_SIZE.pack(_MAGIC, len(encoded)))
  file.write(_CHECKSUM.pack(writer.checksum))


def read(file: BinaryIO) -> Made | None:
  """What `write` wrote, memory-mapped; None: the file is damaged."""
  footer = os.fstat(file.fileno()).st_size - _SIZE.size - _CHECKSUM.size
  if footer <= 0:
    return None
  checksum, left = 0, footer + _SIZE.size
  while left:
    chunk = file.read(min(left, reading.CHUNK))
    checksum = zlib.crc32(chunk, checksum)
    left -= len(chunk)
  if file.read() != _CHECKSUM.pack(checksum):
    return None
  content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  magic, size = _SIZE.unpack_from(content, footer)
  if magic != _MAGIC:
    return None
  found = json.loads(content[footer - size : footer])
  return _value(found["corpus"], content), found["lines"]


class _Writer:
  """Writes values; each object once, however many fields have it.

  Attributes:
    checksum: the CRC-32 of all bytes.
  """

  def __init__(self, file: BinaryIO):
    self.checksum = 0
    self._file, self._size = file, 0
    self._known: dict[int, tuple[Any, Any]] = {}  # By id(): object and place.

  def write(self, content: bytes | memoryview):
    """Writes bytes."""
    self._size += self._file.write(content)
    self.checksum = zlib.crc32(content, self.checksum)

  def place(self, value: Any) -> Any:
    """Writes a value; returns what the JSON object has for it."""
    if value is None or isinstance(value, (str, float)):
      return value
    if id(value) not in self._known:
      self._known[id(value)] = value, self._place(value)
    return self._known[id(value)][1]

  def _place(self, value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
      return self._array(value)
    if names := _CLASSES.get(type(value)):
      fields = {name: self.place(getattr(value, name)) for name in names}
      return [type(value).__name__, fields]
    texts = value if isinstance(value, Stored) else stored(value)
    return ["texts", self._array(texts.content), self._array(texts.ends)]

  def _array(self, array: np.ndarray) -> list[Any]:
    self.write(bytes(-self._size % _ALIGNED))
    start = self._size
    for first in range(0, len(array), reading.CHUNK):
      some = np.ascontiguousarray(array[first : first + reading.CHUNK])
      self.write(some.view(np.uint8).data)
    return ["array", array.dtype.str, start, len(array)]


def _value(place: Any, content: mmap.mmap) -> Any:
  """The value that the JSON object has at a place."""
  if not isinstance(place, list):
    return place
  kind, *rest = place
  if kind == "array":
    dtype, start, count = rest
    return np.frombuffer(content, dtype, count, start)
  if kind == "texts":
    return Stored(*(_value(array, content) for array in rest))
  [cls] = (cls for cls in _CLASSES if cls.__name__ == kind)
  fields = {name: _value(part, content) for name, part in rest[0].items()}
  if cls is Corpus:
    fields["symbols"] = list(fields["symbols"])
  return cls(**fields)
