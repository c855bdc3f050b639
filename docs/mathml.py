"""Equations as MathML, which a browser draws without a script or a network."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def _mathml(text: str, **how) -> str:
  markup = tex2mathml(text, **how)
  # A prime is upright where it is part of a name.
  prime = '<mo lspace="0" rspace="0">\N{PRIME}</mo>'
  return re.sub(r"<mi>(\w)'</mi>", rf"<mrow><mi>\1</mi>{prime}</mrow>", markup)


def _inline(writer, node: nodes.math):
  writer.body.append(_mathml(node.astext()))
  raise nodes.SkipNode


def _block(writer, node: nodes.math_block):
  text = node.astext()
  if r"\\" in text and r"\begin" not in text:
    text = rf"\begin{{aligned}}{text}\end{{aligned}}"
  writer.body.append(_mathml(text, as_block=True))
  raise nodes.SkipNode


def setup(app: Sphinx):
  app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
  return {"parallel_read_safe": True, "parallel_write_safe": True}
