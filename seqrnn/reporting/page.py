"""Builds a page of HTML in one file, which loads nothing from a network.

Elements are those of xml.etree, which escapes their texts when it writes them:
the texts come from corpora and may contain markup.
"""

import base64
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from seqrnn.errors import escaped
from seqrnn.runtime import files

# A symbol gets one more level of colour above each of these surprisals, given
# as shares of the surprisal under a uniform distribution.
_LEVELS = 0.12, 0.25, 0.4, 0.6, 0.8, 1.05

_LONGEST = 1500  # Characters of a coloured text.

Child = Any  # An Element, a text, None for nothing, or a list of these.


def element(name: str, /, *children: Child, **attributes: Any) -> Element:
  """Makes an element of HTML or SVG.

  Args:
    name: the tag.
    children: its content.
    attributes: `class_` stands for class and `aria_label` for aria-label. An
      attribute that is None is left out; one that is True has no value.
  """
  node = Element(
    name,
    {
      key.rstrip("_").replace("_", "-"): "" if value is True else text(value)
      for key, value in attributes.items()
      if value is not None
    },
  )
  _fill(node, children)
  return node


def text(value: Any) -> str:
  """A value as text, in which characters that do not print are escaped."""
  if isinstance(value, float):
    return f"{value:.6g}"
  return escaped(str(value), keep="\n\t")


def _fill(parent: Element, children: Iterable[Child]):
  for child in children:
    if isinstance(child, Element):
      parent.append(child)
    elif isinstance(child, list | tuple):
      _fill(parent, child)
    elif child is not None:
      last = parent[-1] if len(parent) else None
      if last is None:
        parent.text = (parent.text or "") + text(child)
      else:
        last.tail = (last.tail or "") + text(child)


def data(value: Any, **attributes: Any) -> Element:
  """Data for the script of the page, as JSON."""
  content = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
  kind = "application/json"
  return element("script", content, type=kind, hidden=True, **attributes)


def table(
  head: list[Child],
  rows: Iterable[list[Child]],
  label: str,
  class_: str | None = None,
) -> Element:
  """A table, which has its own scroll bar if it is wider than the page.

  Args:
    head: the names of the columns.
    rows: their cells; the first cell of a row is its name.
    label: describes the table to screen readers.
    class_: its class in the style sheet.
  """
  body = [
    element(
      "tr",
      element("th", row[0], scope="row"),
      [element("td", cell) for cell in row[1:]],
    )
    for row in rows
  ]
  return element(
    "div",
    element(
      "table",
      element(
        "thead",
        element("tr", [element("th", cell, scope="col") for cell in head]),
      ),
      element("tbody", body),
      aria_label=label,
      class_=class_,
    ),
    class_="scroll",
    tabindex=0,
    role="group",
    aria_label=label,
  )


def pictures(folder: Path, descriptions: dict[str, str]) -> list[Element]:
  """The PNG files that exist in a folder, embedded in the page.

  Args:
    folder: of the files.
    descriptions: file name without its suffix -> what the picture shows.
  """
  paths = {folder / f"{name}.png": text for name, text in descriptions.items()}
  return [_picture(path, text) for path, text in paths.items() if path.exists()]


def _picture(path: Path, description: str) -> Element:
  content = files.read(path, 2**25)
  source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
  return element(
    "figure",
    element("img", src=source, alt=description, loading="lazy"),
    element("figcaption", description),
    class_="picture",
  )


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


def full(marks: Iterable[Mark]) -> bool:
  """Whether a coloured text has reached its maximal length."""
  return sum(len(mark.text) for mark in marks) >= _LONGEST


def marked(marks: list[Mark], guess: float, words: str) -> Element:
  """A text coloured by surprisal, with details of the symbol pointed at.

  Args:
    marks: its symbols; those beyond the maximal length are left out.
    guess: the surprisal under a uniform distribution, in bits.
    words: describes the text to screen readers.
  """
  names: dict[str, int] = {}
  index = lambda name: names.setdefault(text(name), len(names))
  symbols, spans = [], []
  length = 0
  for mark in marks:
    if length >= _LONGEST:
      break
    length += len(mark.text)
    likely = [
      [index(name), round(float(share), 4)] for name, share in mark.likely
    ]
    bits = None if mark.bits is None else round(float(mark.bits), 3)
    symbols.append([index(mark.name), bits, likely])
    level = sum((bits or 0) > guess * share for share in _LEVELS)
    kind = f"s{level}" if level else None
    spans.append(element("span", mark.text, class_=kind))
  scale = [element("i", class_=f"s{n}") for n in range(7)]
  return element(
    "div",
    element(
      "div",
      element(
        "p",
        "expected",
        element("span", scale, class_="scale", aria_hidden="true"),
        "surprising. Point at a symbol, touch a symbol, or use the arrow keys.",
        class_="muted",
      ),
      _text_card(spans, words),
    ),
    element(
      "div",
      element("p", "The predictions for a symbol appear here.", class_="muted"),
      class_="predicted card",
      aria_live="polite",
    ),
    data({"names": list(names), "symbols": symbols}),
    class_="reading",
  )


def tinted(texts: Iterable[tuple[str, float]], words: str) -> Element:
  """A text whose symbols are coloured by numbers from -1 to 1."""

  def level(item):
    return round(4 * min(max(item[1], -1), 1))

  spans = []
  for n, run in itertools.groupby(texts, level):
    part = "".join(text for text, _ in run)
    kind = f"{'p' if n > 0 else 'n'}{abs(n)}"
    spans.append(element("span", part, class_=kind) if n else part)
  return _text_card(spans, words)


def _text_card(spans: list[Child], words: str) -> Element:
  """The frame around a coloured text, which keys can scroll."""
  return element(
    "div",
    spans,
    class_="text card",
    tabindex=0,
    role="group",
    aria_label=words,
  )


def bars(rows: Iterable[tuple[str, float, str]]) -> Element:
  """Bars: the name, the share and the class of each."""
  return element(
    "div",
    [
      [
        element("span", name),
        element(
          "div",
          element("i", class_=kind or None, style=f"width:{share:.1%}"),
          class_="track",
        ),
        element("span", f"{share:.0%}", class_="value"),
      ]
      for name, share, kind in rows
    ],
    class_="rows",
  )


def section(title: str, *children: Child, **attributes: Any) -> Element:
  """A section of the page under its title."""
  name = "".join(c if c.isalnum() else "-" for c in title.lower())
  return element(
    "section", element("h2", title), children, id=name, **attributes
  )


def write(path: Path, title: str, top: Child, sections: list[Element]):
  """Writes a page.

  Args:
    path: of the file.
    title: of the page.
    top: the content above the sections.
    sections: made by `section`.

  Raises:
    UserError: the file cannot be written.
  """
  links = [
    element("a", part[0].text, href=f"#{part.get('id')}") for part in sections
  ]
  page = element(
    "html",
    element(
      "head",
      element("meta", charset="utf-8"),
      element(
        "meta",
        name="viewport",
        content="width=device-width, initial-scale=1",
      ),
      element("meta", name="color-scheme", content="light dark"),
      # The browser then loads nothing, whatever the page contains.
      element(
        "meta",
        http_equiv="Content-Security-Policy",
        content="default-src 'none'; style-src 'unsafe-inline'; script-src"
        " 'unsafe-inline'; img-src data:",
      ),
      element("title", title),
      # Without an icon, a browser would request one from a server.
      element("link", rel="icon", href="data:,"),
      element("style", _read("page.css")),
    ),
    element(
      "body",
      element("header", top, class_="top"),
      element("nav", links, aria_label="Sections"),
      element("main", sections),
      element("footer", element("p", "Written by seqrnn.")),
      element("script", _read("page.js")),
    ),
    lang="en",
  )
  content = ElementTree.tostring(page, encoding="unicode", method="html")
  with files.atomic_write(path) as file:
    file.write(f"<!doctype html>\n{content}\n")


def _read(name: str) -> str:
  """A file beside this module."""
  return Path(__file__).with_name(name).read_text("utf-8")
