"""Reads XLA's programs: what each loop does in a time step, and what is exact.

  compiled = jax.jit(f).lower(...).compile()
  for loop in hlo.loops(compiled.as_text()):
    print(loop)

On a GPU each instruction of a loop's body is a kernel that is launched anew in
every iteration. On a TPU `cycles` is the compiler's own estimate of the time of
an iteration. Nothing here imports JAX.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$")
_INSTRUCTION = re.compile(
  r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\("
)
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_FLOAT = re.compile(r"\(?(?:f|bf)\d+\[")
_PRECISION = re.compile(r"(?:operand_precision=\{|algorithm=)(\w+)")
# Instructions that launch nothing: they name memory or run on the host.
_FREE = {
  "after-all",
  "bitcast",
  "call",
  "conditional",
  "constant",
  "get-tuple-element",
  "iota",
  "opt-barrier",
  "parameter",
  "partition-id",
  "tuple",
  "while",
}
_COLLECTIVES = ("all-", "collective-", "ragged-all", "reduce-scatter")
# The second half of an asynchronous instruction, which the first one counts.
_SECOND = ("-done", "-update")


class Instruction(NamedTuple):
  """An instruction of a computation.

  Attributes:
    name: of its result.
    shape: of its result, as text.
    operation: the opcode, for example `fusion`.
    line: the whole line.
  """

  name: str
  shape: str
  operation: str
  line: str


class Loop(NamedTuple):
  """A `while` of a program, with the totals of one iteration.

  Loops inside are counted with all of their iterations, a conditional with all
  of its branches.

  Attributes:
    name: the JAX name of the operation that became the loop.
    trips: the number of iterations; None if it is known only at run time.
    depth: the number of loops around this one.
    kernels: instructions that are launched: fusions, copies, library calls.
    fusions: the fusions among them.
    cycles: the TPU compiler's estimate; 0 for a GPU.
    collectives: instructions that wait for other devices.
    backward: whether the loop is of a backward pass.
  """

  name: str
  trips: int | None
  depth: int
  kernels: int
  fusions: int
  cycles: int
  collectives: int
  backward: bool


class Program:
  """The computations of an optimized program.

  Attributes:
    computations: name -> its instructions.
    entry: the name of the computation that runs first.
  """

  def __init__(self, text: str):
    self.computations: dict[str, list[Instruction]] = {}
    self.entry, name = "", None
    for line in text.splitlines():
      head = _HEAD.match(line)
      if head:
        name = head[2]
        self.computations[name] = []
        self.entry = name if head[1] else self.entry
      elif line.startswith("}"):
        name = None
      elif name and (found := _INSTRUCTION.match(line)):
        parts = found[1], found[2], found[3]
        self.computations[name].append(Instruction(*parts, line))

  def trips(self, loop: Instruction) -> int | None:
    """The number of iterations of a `while`; None if it is not known."""
    if known := _TRIPS.search(loop.line):
      return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.line)
    if condition is None:
      return None
    inside = self.computations[condition[1]]
    # An index that starts at 0 is compared with a constant.
    limits = [i for i in inside if i.operation == "constant"]
    compared = [i for i in inside if i.operation == "compare"]
    if len(limits) != 1 or len(compared) != 1:
      return None
    if "direction=LT" not in compared[0].line:
      return None
    limit = re.search(r"constant\((\d+)\)", limits[0].line)
    return int(limit[1]) if limit else None

  def called(self, instruction: Instruction) -> list[str]:
    """The computations that run as parts of an instruction."""
    if instruction.operation == "while":
      return re.findall(r"body=%?([\w.\-]+)", instruction.line)
    if instruction.operation in ("call", "conditional", "async-start"):
      names = _CALLED.findall(instruction.line)
      if branches := _BRANCHES.search(instruction.line):
        names += re.findall(r"[\w.\-]+", branches[1])
      return [name for name in names if name in self.computations]
    return []

  def launched(self, name: str) -> Iterator[tuple[Instruction, int]]:
    """Yields what a computation launches, and how often."""
    for instruction in self.computations[name]:
      operation = instruction.operation
      parts = self.called(instruction)
      if not parts and operation not in _FREE:
        if not operation.endswith(_SECOND):
          yield instruction, 1
        continue
      times = 1
      if operation == "while":
        times = self.trips(instruction) or 1
      for part in parts:
        for inner, count in self.launched(part):
          yield inner, times * count

  def loops(self, name: str | None = None, depth: int = 0) -> list[Loop]:
    """The loops below a computation, each before the loops inside it."""
    found = []
    for instruction in self.computations[name or self.entry]:
      inner = depth
      if instruction.operation == "while":
        found.append(self._loop(instruction, depth))
        inner += 1
      for part in self.called(instruction):
        found += self.loops(part, inner)
    return found

  def _loop(self, instruction: Instruction, depth: int) -> Loop:
    [body] = self.called(instruction)
    trips = self.trips(instruction)
    launched = [*self.launched(body)]
    if trips is None:  # The condition is computed, and read by the host.
      condition = re.search(r"condition=%?([\w.\-]+)", instruction.line)
      launched += self.launched(condition[1]) if condition else []
    operations, cycles = Counter(), 0
    for inner, count in launched:
      operations[inner.operation] += count
      estimate = _CYCLES.search(inner.line)
      cycles += count * int(estimate[1]) if estimate else 0
    # XLA may make a loop anew, without its name.
    named = [instruction, *(inner for inner, _ in launched)]
    names = [found[1] for i in named if (found := _SOURCE.search(i.line))]
    name = names[0] if names else ""
    return Loop(
      name=name,
      trips=trips,
      depth=depth,
      kernels=sum(operations.values()),
      fusions=operations["fusion"],
      cycles=cycles,
      collectives=_waits(operations),
      backward="transpose(" in name,
    )

  def collectives(self) -> tuple[int, int]:
    """Instructions that wait for other devices: inside, and outside loops.

    Inside, one instruction counts once, whatever the number of iterations.
    """
    everywhere = Counter(
      i.operation
      for instructions in self.computations.values()
      for i in instructions
      if not i.operation.endswith(_SECOND)
    )
    outside = Counter(i.operation for i in self._outside(self.entry))
    count = _waits(outside)
    return _waits(everywhere) - count, count

  def _outside(self, name: str) -> Iterator[Instruction]:
    for instruction in self.computations[name]:
      if instruction.operation == "while":
        continue
      if not instruction.operation.endswith(_SECOND):
        yield instruction
      for part in self.called(instruction):
        yield from self._outside(part)

  def float_scatters(self) -> int:
    """Additions to rows of floats that may be hit more than once.

    A GPU makes atomics of them, whose order is not the same on each run.
    """
    return sum(
      i.operation == "scatter"
      and bool(_FLOAT.match(i.shape))
      and "unique_indices=true" not in i.line
      for instructions in self.computations.values()
      for i in instructions
    )

  def precisions(self) -> dict[str, int]:
    """The number of matrix products by their precision.

    `highest`: the factors are not rounded. `high`: three products of bfloat16
    parts, on a TPU. An algorithm, for example `dot_tf32_tf32_f32`. Otherwise
    the types of the factors; a TPU rounds f32 to bfloat16, a GPU to TF32.
    """
    found = Counter()
    for instructions in self.computations.values():
      types = {i.name: i.shape.partition("[")[0] for i in instructions}
      for i in instructions:
        if i.operation in ("dot", "convolution"):
          given = _PRECISION.search(i.line)
          _, _, inside = i.line.partition(f" {i.operation}(")
          factors = re.findall(r"[\w.\-]+", inside)
          names = {types[factor] for factor in factors[:2]}
          found[given[1] if given else " ".join(sorted(names))] += 1
        elif "__cublas" in i.line:
          exact = '"HIGHEST","HIGHEST"' in i.line
          found["highest" if exact else "cuBLAS"] += 1
    return dict(found)


def _waits(operations: Counter) -> int:
  """The number of collectives among counted instructions."""
  return sum(
    count
    for operation, count in operations.items()
    if operation.startswith(_COLLECTIVES)
  )


def loops(text: str) -> list[Loop]:
  """The loops of an optimized program's text."""
  return Program(text).loops()
