"""Links of pages to files of the repository lead to copies in the site.

A link such as `[cells](../../seqrnn/models/cells)` works where the
repository is browsed. In the site it leads to a page with the file, or, for a
folder, with the list of its files; so the site needs no address of a
repository.
"""

import html
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]
# Files outside of docs/ that a page includes.
PAGES = {
  ".": "index",
  "docs": "index",
  "README.md": "index",
  "RESULTS.md": "results/public",
  "benchmarks/README.md": "results/benchmarks",
  "CHANGELOG.md": "changelog",
}


class Links(SphinxTransform):
  """Turns links to files of the repository into links to their pages."""

  default_priority = 600  # After parsing; before files to download are copied.

  def apply(self, **_):
    for kind in (addnodes.download_reference, addnodes.pending_xref):
      for node in list(self.document.findall(kind)):
        if node.get("reftype") == "myst":
          self._turn(node)

  def _turn(self, node: addnodes.pending_xref | addnodes.download_reference):
    base = Path(node.source or self.env.doc2path(self.env.docname))
    target, _, anchor = node["reftarget"].partition("#")
    if node["refdomain"] == "doc":  # A document, by its name or path.
      if target in self.env.found_docs:
        return
      target, anchor = f"{target}.md", node["reftargetid"]
    path = (base.parent / target).resolve()
    if not target or not path.exists() or not path.is_relative_to(ROOT):
      return  # MyST warns.
    name = path.relative_to(ROOT).as_posix()
    page = PAGES.get(name) or self.env.path2doc(path)
    if page not in self.env.found_docs:
      page = shown(self.app, name)
    uri = self.app.builder.get_relative_uri(self.env.docname, page)
    uri += f"#{anchor}" if anchor else ""
    link = nodes.reference("", "", *node.children, internal=True, refuri=uri)
    node.replace_self(link)


def shown(app: Sphinx, name: str) -> str:
  """Notes that the page being read needs a copy of a file; returns its page."""
  app.env.metadata[app.env.docname].setdefault("sources", set()).add(name)
  return f"source/{name}"


def place(app: Sphinx, domain: str, info: dict[str, str]) -> str | None:
  """Returns the link of a documented object to its lines."""
  if domain != "py":
    return None
  member = sys.modules[info["module"]]
  for part in info["fullname"].split("."):
    member = getattr(member, part, None)
  try:
    path = Path(inspect.getsourcefile(inspect.unwrap(member)))
    line = inspect.getsourcelines(member)[1]
  except TypeError:  # An attribute.
    return None
  if not path.is_relative_to(ROOT):
    return None
  page = shown(app, path.relative_to(ROOT).as_posix())
  return f"{app.builder.get_relative_uri(app.env.docname, page)}#L-{line}"


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
  """Yields the pages of all files that pages link to."""
  names = {n for m in app.env.metadata.values() for n in m.get("sources", ())}
  for name in sorted(names):
    path = ROOT / name
    body = _listing(path) if path.is_dir() else _content(path)
    title = html.escape(name)
    body = f"<h1>{title}</h1>\n{body}"
    yield f"source/{name}", {"title": title, "body": body}, "page.html"


def _content(path: Path) -> str:
  """Returns a file with colours, its lines numbered."""
  try:
    lexer = get_lexer_for_filename(path.name)
  except ClassNotFound:
    lexer = TextLexer()
  formatter = HtmlFormatter(linenos="inline", lineanchors="L")
  return highlight(path.read_text("utf-8"), lexer, formatter)


def _listing(folder: Path) -> str:
  """Returns the names of the files in a folder."""
  paths = sorted(p for p in folder.iterdir() if p.name[0] not in "._")
  names = (f"{p.name}/" if p.is_dir() else p.name for p in paths)
  items = "".join(f"<li>{html.escape(name)}</li>" for name in names)
  return f"<ul>{items}</ul>"


def setup(app: Sphinx):
  app.add_transform(Links)
  app.connect("html-collect-pages", pages)
  app.connect(
    "config-inited",
    lambda app, config: setattr(
      config, "linkcode_resolve", lambda *what: place(app, *what)
    ),
  )
  return {"parallel_read_safe": True, "parallel_write_safe": True}
