"""Equations as MathML, which a browser draws without a script or a network."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def _inline(writer, node: nodes.math):
  writer.body.append(tex2mathml(node.astext()))
  raise nodes.SkipNode


def _block(writer, node: nodes.math_block):
  text = node.astext()
  if r"\\" in text and r"\begin" not in text:
    text = rf"\begin{{aligned}}{text}\end{{aligned}}"
  writer.body.append(tex2mathml(text, as_block=True))
  raise nodes.SkipNode


def setup(app: Sphinx):
  app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
  return {"parallel_read_safe": True, "parallel_write_safe": True}
