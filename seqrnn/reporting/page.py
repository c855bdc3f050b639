"""Renders a page of HTML in one file, which loads nothing from a network.

The template escapes every value, because texts come from corpora and may
contain markup. sections.html.jinja has a macro for each kind of section.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from seqrnn.errors import escaped
from seqrnn.runtime import files

# A symbol gets one more level of colour above each of these surprisals, given
# as shares of the surprisal under a uniform distribution.
_LEVELS = 0.12, 0.25, 0.4, 0.6, 0.8, 1.05

LONGEST = 1500  # Characters of a coloured text.


class Section(NamedTuple):
  """A section under a title.

  Attributes:
    title: of the section.
    macro: of sections.html.jinja, which shows the data.
    data: attributes that the macro reads, by their names.
  """

  title: str
  macro: str
  data: dict[str, Any]


Tile = tuple[str, str]  # A metric in large letters, and its name.


class Heading(NamedTuple):
  """The top of a page.

  Attributes:
    eyebrow: a few words above the title.
    title: of the page.
    text: sentences below the title.
    caution: a sentence in bold; "": none.
    tiles: of the page; None: it has no place for them.
    playground: the file name of the playground; "": there is none.
    reason: the reason why there is none; "": the page does not mention it.
  """

  eyebrow: str
  title: str
  text: str
  caution: str = ""
  tiles: list[Tile] | None = None
  playground: str = ""
  reason: str = ""


def printable(value: Any) -> Any:
  """A value as text, in which characters that do not print are escaped."""
  if value is None or hasattr(value, "__html__"):  # Nothing, or markup.
    return value or ""
  if isinstance(value, float):
    return f"{value:.5g}"
  return escaped(str(value), keep="\n\t")


class Mark(NamedTuple):
  """A symbol of a coloured text, and the predictions in its place.

  Attributes:
    text: the symbol within the text.
    name: the symbol on its own.
    bits: its surprisal; None if the model did not predict it.
    likely: the most likely names and their probabilities, best first.
  """

  text: str
  name: str
  bits: float | None = None
  likely: Sequence[tuple[str, float]] = ()


class ColouredText(NamedTuple):
  """A text coloured by surprisal.

  Attributes:
    spans: parts of the text, each with the class of its colour.
    names: of all symbols that `symbols` mentions.
    symbols: of each symbol of the text, the index of its name, its surprisal
      in bits, and the indices and probabilities of the likely symbols.
  """

  spans: list[tuple[str, str]]
  names: list[str]
  symbols: list[tuple[int, float | None, list[tuple[int, float]]]]


def coloured(marks: Iterable[Mark], guess: float) -> ColouredText:
  """A text coloured by surprisal, with details of the symbol pointed at.

  Args:
    marks: its symbols; those beyond the maximal length are left out.
    guess: the surprisal under a uniform distribution, in bits.
  """
  names: dict[str, int] = {}
  index = lambda name: names.setdefault(printable(name), len(names))
  symbols, spans = [], []
  length = 0
  for mark in marks:
    if length >= LONGEST:
      break
    length += len(mark.text)
    likely = [(index(name), round(float(p), 4)) for name, p in mark.likely]
    bits = None if mark.bits is None else round(float(mark.bits), 3)
    symbols.append((index(mark.name), bits, likely))
    level = sum((bits or 0) > guess * share for share in _LEVELS)
    spans.append((mark.text, f"s{level}" if level else ""))
  return ColouredText(spans, list(names), symbols)


def write_page(path: Path, title: str, top: Heading, sections: list[Section]):
  """Writes a page.

  Args:
    path: of the file.
    title: of the window.
    top: of the page.
    sections: in the order of the page.

  Raises:
    UserError: the file cannot be written.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=printable,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  template = environment.get_template("page.html.jinja")
  content = template.render(title=title, top=top, sections=sections)
  files.write(path, content)
