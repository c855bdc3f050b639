"""Records which branches of jinja's templates were rendered."""

import jinja2
from jinja2 import nodes


class Recorder(jinja2.Environment):
  """An environment that notes each branch of an `if` or `for` it renders."""

  known: set[str] = set()
  rendered: set[str] = set()

  @classmethod
  def not_rendered(cls, *templates):
    """The branches of templates that were not rendered."""
    assert all(any(b.startswith(t) for b in cls.known) for t in templates)
    left = sorted(cls.known - cls.rendered)
    return [branch for branch in left if branch.startswith(templates)]

  def compile(self, source, name=None, filename=None, *args, **named):
    @jinja2.pass_context  # Otherwise it would be called while compiling.
    def note(_, branch):
      self.rendered.add(branch)
      return ""

    self.filters["note"] = note
    tree = self.parse(source, name, filename)
    bodies = [
      body
      for node in tree.find_all((nodes.If, nodes.For))
      for body in (node.body, node.else_)
      if body
    ]
    for number, body in enumerate(bodies):
      branch = f"{name}, line {body[0].lineno}, branch {number}"
      self.known.add(branch)
      call = nodes.Filter(nodes.Const(branch), "note", [], [], None, None)
      body.insert(0, nodes.Output([call]))
    return super().compile(tree, name, filename, *args, **named)
