"""Templates of log lines: the words that stay the same where values change.

`masked` replaces values in a line that are known by their form, as numbers.
`mine` finds the templates of masked lines with Drain (He et al. 2017), and
`matcher` the template of a line. A blank of a template is a single word.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from seqrnn.errors import UserError

BLANK = "<*>"

# A time, as lines of logs begin with one.
TIME = re.compile(
  r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
  r"|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?: \d{4})?)"
)
_MASKS = re.compile(
  rf"(?<!\w)(?:{TIME.pattern})(?!\w)"
  r"|(?P<address>(?<![\w.])/?\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w-]|\.\d)"
  r"|(?<![\w:])[0-9A-Fa-f]{1,4}(?:::?[0-9A-Fa-f]{1,4}){3,7}(?![\w:]))"
  r"|(?P<hex>0[xX][0-9A-Fa-f]+"
  r"|(?<![^\W_])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![^\W_])"
  r"|(?<![^\W_])(?=[A-Fa-f]*\d)(?=\d*[A-Fa-f])[0-9A-Fa-f]{8,}(?![^\W_]))"
  r"|(?P<number>(?<!\w)-?\d(?:[\w.:+~-]*\w)?|(?:(?<=_)-)?\d+(?:\.\d+)*)"
)
_REPEATED = re.compile(r"(?<!\S)(<\w+>),?(?: \1,?)+(?!\S)")


def masked(line: str, names: re.Pattern | None = None) -> str:
  """The line with masks for times, addresses, hexadecimal and other numbers.

  A list of equal masks becomes one mask. The group of `names`, which finds the
  names of sessions, becomes `<session>` first.
  """
  if names is not None:
    parts, end = [], 0
    for found in names.finditer(line):
      if found[1]:
        start, stop = found.span(1)
        parts += [line[end:start], "<session>"]
        end = stop
    line = "".join([*parts, line[end:]])
  line = _MASKS.sub(lambda found: f"<{found.lastgroup}>", line)
  return _REPEATED.sub(r"\1", " ".join(line.split()))


def mine(lines: Iterable[str]) -> list[str]:
  """The templates of masked lines, in the order of their first lines.

  Raises:
    UserError: the package drain3 is missing.
  """
  try:
    from drain3.drain import Drain
  except ImportError:
    raise UserError(
      "data.unit='log': needs the package drain3; pip install 'seqrnn[logs]'"
      " brings it"
    ) from None
  # Masked lines vary little, so lines of a template must agree in more words
  # than by Drain's defaults: in the first two, and in half of all words.
  drain = Drain(depth=5, sim_th=0.5, param_str=BLANK)
  for line in lines:
    drain.add_log_message(line)
  found = (" ".join(each.log_template_tokens) for each in drain.clusters)
  return list(dict.fromkeys(found))


def matcher(templates: Sequence[str]) -> Callable[[str], int | None]:
  """A function from a masked line to the index of its template; None: none.

  Of several templates that fit, the one with the fewest blanks; then the first.
  """
  places = {template: n for n, template in enumerate(templates)}
  # By number of words, the positions of the blanks in templates.
  blanks: dict[int, dict[tuple[int, ...], None]] = defaultdict(dict)
  for template in templates:
    words = template.split(" ")
    blank = tuple(i for i, word in enumerate(words) if word == BLANK)
    blanks[len(words)][blank] = None
  tried = {length: sorted(found, key=len) for length, found in blanks.items()}

  def match(line: str) -> int | None:
    words = line.split()  # An empty line has no words, and no template.
    for blank in tried.get(len(words), ()):
      fitted = words.copy()
      for i in blank:
        fitted[i] = BLANK
      place = places.get(" ".join(fitted))
      if place is not None:
        return place
    return None

  return match
