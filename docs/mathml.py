"""Equations as MathML, which a browser draws without a script or a network."""

from docutils import nodes
from docutils.utils.math import latex2mathml, pick_math_environment
from sphinx.application import Sphinx


def _inline(writer, node: nodes.math):
  writer.body.append(latex2mathml.tex2mathml(node.astext()))
  raise nodes.SkipNode


def _block(writer, node: nodes.math_block):
  text = node.astext()
  environment = pick_math_environment(text)
  text = rf"\begin{{{environment}}}{text}\end{{{environment}}}"
  writer.body.append(latex2mathml.tex2mathml(text, as_block=True))
  raise nodes.SkipNode


def setup(app: Sphinx):
  app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
  return {"parallel_read_safe": True, "parallel_write_safe": True}
