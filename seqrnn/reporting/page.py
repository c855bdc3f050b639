"""A page of HTML in one file: it asks nothing of any network.

Elements are those of xml.etree, so that whatever text comes in is escaped on
its way out; anyone may have made it.
"""

import base64
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from seqrnn.errors import escaped
from seqrnn.runtime import files

# Bits of a symbol, beside those of a blind guess, that give it more colour.
_SURE = 0.12, 0.25, 0.4, 0.6, 0.8, 1.05

_LONGEST = 1500  # Characters of such a text.

Child = Any  # An Element, a text, None for nothing, or several of them.


def element(name: str, /, *children: Child, **attributes: Any) -> Element:
  """An element of HTML or SVG.

  Args:
    name: of its tag.
    children: what is in it.
    attributes: by their names, `class_` for class and `aria_label` for
      aria-label; one that is None is left out, one that is True has no value.
  """
  made = Element(
    name,
    {
      key.rstrip("_").replace("_", "-"): "" if value is True else text(value)
      for key, value in attributes.items()
      if value is not None
    },
  )
  _fill(made, children)
  return made


def text(value: Any) -> str:
  """A value as a page shows it: what cannot be printed is written out."""
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
  """What the script of the page reads, as JSON."""
  content = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
  kind = "application/json"
  return element("script", content, type=kind, hidden=True, **attributes)


def table(
  head: list[Child], rows: Iterable[list[Child]], **attributes: Any
) -> Element:
  """A table that scrolls by itself where it is wider than the page.

  The first cell of a row is its name.
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
      **attributes,
    ),
    class_="scroll",
    tabindex=0,
    role="group",
    aria_label=attributes.get("aria_label", "table"),
  )


def picture(path: Path, description: str) -> Element:
  """A picture that lies in a file, in the page itself."""
  content = files.read(path, 2**25)
  kind = {".png": "png", ".svg": "svg+xml"}[path.suffix]
  source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
  return element(
    "figure",
    element("img", src=source, alt=description, loading="lazy"),
    element("figcaption", description),
    class_="picture",
  )


class Mark(NamedTuple):
  """A symbol of a text, and what was expected in its place.

  Attributes:
    text: as it stands there.
    name: by itself.
    bits: of surprise; None: nothing was expected.
    likely: names, and their probabilities, best first.
  """

  text: str
  name: str
  bits: float | None = None
  likely: Iterable[tuple[str, float]] = ()


def full(marks: Iterable[Mark]) -> bool:
  """Whether a coloured text is as long as it should be."""
  return sum(len(mark.text) for mark in marks) >= _LONGEST


def marked(marks: list[Mark], guess: float, words: str) -> Element:
  """A text coloured by surprise, which tells of the symbol one points at.

  Args:
    marks: its symbols; what comes when it is full is left out.
    guess: the bits of a blind guess.
    words: what the text is.
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
    level = sum((bits or 0) > guess * share for share in _SURE)
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
        "surprising. Point at a symbol, touch it, or use the arrow keys.",
        class_="muted",
      ),
      element(
        "div",
        spans,
        class_="text card",
        tabindex=0,
        role="group",
        aria_label=words,
      ),
    ),
    element(
      "div",
      element("p", "What the model expected stands here.", class_="muted"),
      class_="said card",
      aria_live="polite",
    ),
    data({"names": list(names), "symbols": symbols}),
    class_="reading",
  )


def tinted(texts: Iterable[tuple[str, float]], words: str) -> Element:
  """A text coloured by a number for each symbol, from -1 to 1."""

  def level(item):
    return round(4 * min(max(item[1], -1), 1))

  spans = []
  for n, run in itertools.groupby(texts, level):
    part = "".join(text for text, _ in run)
    kind = f"{'p' if n > 0 else 'n'}{abs(n)}"
    spans.append(element("span", part, class_=kind) if n else part)
  return element(
    "div",
    spans,
    class_="text card",
    tabindex=0,
    role="group",
    aria_label=words,
  )


def bars(rows: Iterable[tuple[str, float, str]]) -> Element:
  """Shares as bars with their names."""
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
  """A part of the page, under its title."""
  name = "".join(c if c.isalnum() else "-" for c in title.lower())
  return element(
    "section", element("h2", title), children, id=name, **attributes
  )


def write(path: Path, title: str, top: Child, sections: list[Element]):
  """Writes a page.

  Args:
    path: of its file.
    title: of the page.
    top: what comes before the sections.
    sections: as `section` makes them.

  Raises:
    UserError: it cannot be written.
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
      # Whatever is in it, a browser then asks no server for anything.
      element(
        "meta",
        http_equiv="Content-Security-Policy",
        content="default-src 'none'; style-src 'unsafe-inline'; script-src"
        " 'unsafe-inline'; img-src data:",
      ),
      element("title", title),
      # An icon of its own, or a browser would ask a server for one.
      element("link", rel="icon", href="data:,"),
      element("style", STYLE),
    ),
    element(
      "body",
      element("header", top, class_="top"),
      element("nav", links, aria_label="Sections"),
      element("main", sections),
      element("footer", element("p", "Written by seqrnn.")),
      element("script", SCRIPT),
    ),
    lang="en",
  )
  content = ElementTree.tostring(page, encoding="unicode", method="html")
  with files.atomic_write(path) as file:
    file.write(f"<!doctype html>\n{content}\n")


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #23211d; --muted: #6b665d;
  --line: #e6e2d9; --c0: #25688a; --c1: #c2611f; --c2: #5b7f2b; --c3: #82529f;
  --c4: #a8842c; --c5: #3a7d77;
  --warm: 214 96 30; --cool: 35 116 171; --serif: "Iowan Old Style",
  "Palatino Linotype", Palatino, Georgia, serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15161a; --card: #1c1e23; --ink: #e7e4de; --muted: #a09b92;
    --line: #30333a; --c0: #7dbfe0; --c1: #f0a166; --c2: #a9cd76;
    --c3: #c7a3e3; --c4: #dcbd6a; --c5: #7fcdc5;
    --warm: 240 130 60; --cool: 80 160 220;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; max-width: 1160px; padding: 0 20px 60px;
  background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1, h2, h3 { font-family: var(--serif); font-weight: 600; line-height: 1.2; }
h1 { font-size: clamp(2rem, 6vw, 3.1rem); margin: 0 0 12px;
  overflow-wrap: anywhere; }
h2 { font-size: 1.65rem; margin: 0 0 6px; }
h3 { font-size: 1.1rem; margin: 22px 0 4px; }
p { max-width: 68ch; margin: 6px 0 14px; }
.muted, figcaption, footer { color: var(--muted); }
.top { padding: 56px 0 10px; }
.top p { font-size: 1.12rem; }
.eyebrow { color: var(--muted); letter-spacing: .08em; margin: 0 0 6px;
  text-transform: uppercase; font-size: .78rem !important; }
nav { display: flex; flex-wrap: wrap; gap: 2px 18px; padding: 12px 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line);
  font-size: .9rem; }
a { color: var(--c0); text-underline-offset: 3px; }
nav a { text-decoration: none; padding: 3px 0; }
nav a:hover { text-decoration: underline; }
section { padding: 44px 0 4px; }
footer { margin-top: 60px; border-top: 1px solid var(--line);
  font-size: .85rem; }
.tiles { display: grid; gap: 12px; margin: 22px 0 6px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile, .card { background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 14px 18px; }
.tile strong { display: block; font: 600 1.75rem/1.2 var(--serif); }
.tile span { color: var(--muted); font-size: .87rem; }
.grid { display: grid; gap: 18px; margin: 16px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.four { display: grid; gap: 14px; margin: 16px 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); }
.pairs { display: grid; gap: 8px 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }
.beside { display: grid; gap: 8px 28px; align-items: start;
  grid-template-columns: minmax(0, 1fr) minmax(0, 390px); }
.card h3 { margin: 0 0 8px; }
pre, .text { font: 13px/1.65 var(--mono); white-space: pre-wrap;
  overflow-wrap: anywhere; tab-size: 4; margin: 0; }
.samples pre { max-height: 26rem; overflow: auto; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 14px 14px 12px; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: .85rem; line-height: 1.45; margin: 0 4px 8px; }
figcaption strong { color: var(--ink); display: block; font-size: .95rem; }
figure.picture { background: #fff; color: #23211d; margin: 16px 0; }
figure.picture figcaption { color: #6b665d; margin: 8px 4px 0; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--muted); }
svg .rule { stroke: var(--line); stroke-width: 1; }
svg .mark { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 3; }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
.c0 { stroke: var(--c0); --own: var(--c0); }
.c1 { stroke: var(--c1); --own: var(--c1); stroke-dasharray: 6 4; }
.c2 { stroke: var(--c2); --own: var(--c2); stroke-dasharray: 2 4; }
.c3 { stroke: var(--c3); --own: var(--c3); stroke-dasharray: 9 3 2 3; }
.c4 { stroke: var(--c4); --own: var(--c4); }
.c5 { stroke: var(--c5); --own: var(--c5); stroke-dasharray: 6 4; }
svg .dot { fill: var(--own); stroke: none; }
svg .box { fill: var(--c0); stroke: none; }
.key { display: inline-flex; align-items: center; gap: 6px;
  margin-right: 14px; }
.key svg { width: 26px; height: 8px; flex: none; }
.scroll { overflow-x: auto; margin: 12px 0; border: 1px solid var(--line);
  border-radius: 12px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 14px; vertical-align: top;
  white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td.words, th.words { text-align: left; }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 500; }
tbody th { font-weight: 500; }
table.words td, table.words th { text-align: left; }
table.words td:last-child { min-width: 240px; overflow-wrap: anywhere;
  white-space: normal; }
table.fields td, table.fields th { text-align: left; white-space: normal; }
table.fields tbody th { font-family: var(--mono); font-size: .82rem;
  font-weight: 400; }
table.fields td { font-family: var(--mono); font-size: .82rem; }
table.fields td, table.fields thead th { min-width: 6.8em;
  overflow-wrap: anywhere; }
table.confusion td { padding: 0; }
table.confusion .count { display: block; text-align: center; height: 34px;
  min-width: 38px; padding: 5px 4px; }
table.confusion thead th + th { writing-mode: vertical-rl; text-align: left;
  padding: 8px 4px; vertical-align: bottom; }
table.confusion tbody th { position: sticky; left: 0;
  background: var(--card); max-width: 9em;
  overflow: hidden; text-overflow: ellipsis; }
code, .mono { font-family: var(--mono); font-size: .86em; }
mark { background: rgb(var(--warm) / .45); color: inherit; border-radius: 3px;
  padding: 0 1px; }
.s1 { background: rgb(var(--warm) / .10); }
.s2 { background: rgb(var(--warm) / .20); }
.s3 { background: rgb(var(--warm) / .32); }
.s4 { background: rgb(var(--warm) / .45); }
.s5 { background: rgb(var(--warm) / .58); }
.s6 { background: rgb(var(--warm) / .72); }
.p1 { background: rgb(var(--warm) / .14); }
.p2 { background: rgb(var(--warm) / .30); }
.p3 { background: rgb(var(--warm) / .46); }
.p4 { background: rgb(var(--warm) / .62); }
.n1 { background: rgb(var(--cool) / .14); }
.n2 { background: rgb(var(--cool) / .30); }
.n3 { background: rgb(var(--cool) / .46); }
.n4 { background: rgb(var(--cool) / .62); }
.scale { display: inline-flex; margin: 0 8px; vertical-align: middle;
  border: 1px solid var(--line); }
.scale i { width: 20px; height: 14px; display: block; }
.reading { display: grid; gap: 16px; align-items: start;
  grid-template-columns: minmax(0, 1fr) 290px; margin: 16px 0; }
.reading .text { max-height: 34rem; overflow: auto; cursor: crosshair; }
.reading .text:focus-visible, .scroll:focus-visible { outline: 2px solid
  var(--c0); outline-offset: 3px; }
.reading .now { outline: 2px solid var(--ink); border-radius: 2px; }
.said { position: sticky; top: 16px; min-height: 15rem; }
.said .bar { display: grid; gap: 8px;
  grid-template-columns: minmax(5.5em, 42%) 1fr 3.6em;
  align-items: center; font-size: .85rem; margin: 5px 0; }
.said .bar b { font: 500 .85rem var(--mono); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.said .bar span { text-align: right; font-variant-numeric: tabular-nums; }
.track { height: 9px; border-radius: 5px; background: var(--line);
  overflow: hidden; display: flex; }
.track i { display: block; background: var(--c0); border-radius: 5px; }
.track i.base { background: var(--muted); }
.track i.low { background: var(--c0); border-radius: 0; }
.track i.high { background: var(--c1); border-radius: 0; }
.track i.rest { background: none; }
.rows { display: grid; gap: 6px 14px; align-items: center; max-width: 720px;
  grid-template-columns: fit-content(45%) minmax(60px, 1fr) fit-content(35%);
  font-size: .9rem; margin: 12px 0; }
.rows .value { font-variant-numeric: tabular-nums; color: var(--muted); }
.cell { margin: 16px 0; }
.cell h3 { margin-top: 6px; }
.cell .text { max-height: 17rem; overflow: auto; }
@media (max-width: 800px) {
  .reading, .beside { grid-template-columns: minmax(0, 1fr); }
  .said { position: sticky; bottom: 8px; top: auto; min-height: 0;
    box-shadow: 0 2px 18px rgb(0 0 0 / .18); }
  .reading .text { max-height: none; }
  /* Its letters would be too small. */
  figure.picture { overflow-x: auto; }
  figure.picture img { width: max(100%, 640px); max-width: none; }
  figure.picture figcaption { position: sticky; left: 4px; }
  th, td { padding: 7px 10px; }
  .top { padding-top: 34px; }
  section { padding-top: 34px; }
}
@media print { nav, .said { display: none; }
  .text, .samples pre { max-height: none !important; } }
"""

# Shows what the model expected at a symbol of a text, which is chosen with the
# mouse, by a touch or with the arrow keys.
SCRIPT = """
for (const reading of document.querySelectorAll(".reading")) {
  const {names, symbols} = JSON.parse(
    reading.querySelector("script").textContent);
  const text = reading.querySelector(".text");
  const said = reading.querySelector(".said");
  const spans = [...text.children];
  let now = -1;
  const add = (parent, name, content, kind) => {
    const made = parent.appendChild(document.createElement(name));
    if (content !== undefined) made.textContent = content;
    if (kind) made.className = kind;
    return made;
  };
  const choose = (index) => {
    if (index < 0 || index >= spans.length || index === now) return;
    if (now >= 0) spans[now].classList.remove("now");
    now = index;
    spans[now].classList.add("now");
    const [id, bits, likely] = symbols[now];
    said.replaceChildren();
    const head = add(said, "p");
    add(head, "code", names[id]);
    if (bits === null) {
      head.append(" was not asked for");
      return;
    }
    const chance = 100 * 2 ** -bits;
    head.append(` had ${chance < 0.1 ? chance.toPrecision(1)
      : chance.toFixed(1)} %: ${bits.toFixed(2)} bits`);
    for (const [other, share] of likely) {
      const bar = add(said, "div", undefined, "bar");
      add(bar, "b", names[other]);
      add(add(bar, "div", undefined, "track"), "i").style.width =
        `${100 * share}%`;
      add(bar, "span", `${(100 * share).toFixed(1)} %`);
    }
  };
  choose(symbols.findIndex(([, bits]) => bits !== null));
  const at = (event) => choose(spans.indexOf(event.target.closest("span")));
  text.addEventListener("pointerover", at);
  text.addEventListener("click", at);
  text.addEventListener("keydown", (event) => {
    const way = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!way) return;
    event.preventDefault();
    choose(Math.max(0, now + way));
    spans[now].scrollIntoView({block: "nearest"});
  });
}
"""
