"""Reads XLA's programs: the work of a time step of each loop, and precision.

  compiled = jax.jit(f).lower(...).compile()
  for loop in hlo.Program(compiled.as_text()).loops():
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
_PRECISION = re.compile(r"(?:operand_precision=\{|algorithm=)(\w+)")
# Instructions that launch nothing: they name memory or run on the host.
_FREE = {
  *("after-all", "bitcast", "call", "conditional", "constant", "iota"),
  *("get-tuple-element", "opt-barrier", "parameter", "partition-id"),
  *("tuple", "while"),
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
    trips: the number of iterations; None if it is known only at run time.
    depth: the number of loops around this one.
    kernels: instructions that are launched: fusions, copies, library calls.
    fusions: the fusions among them.
    cycles: the TPU compiler's estimate; 0 for a GPU.
    collectives: instructions that wait for other devices.
    backward: whether the loop is of a backward pass.
  """

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
      elif name and (match := _INSTRUCTION.match(line)):
        self.computations[name].append(Instruction(*match.groups(), line))

  def trips(self, loop: Instruction) -> int | None:
    """The number of iterations of a `while`; None if it is not known."""
    if known := _TRIPS.search(loop.line):
      return int(known[1])
    # An index that starts at 0 is compared with a constant.
    inside = self.computations[self.condition(loop)]
    limits = [i.line for i in inside if i.operation == "constant"]
    compared = [i.line for i in inside if i.operation == "compare"]
    if len(limits) != 1 or len(compared) != 1:
      return None
    limit = re.search(r"constant\((\d+)\)", limits[0])
    return int(limit[1]) if limit and "direction=LT" in compared[0] else None

  def condition(self, loop: Instruction) -> str:
    """The computation that decides whether a `while` goes on."""
    return re.findall(r"condition=%?([\w.\-]+)", loop.line)[0]

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

  def launched(
    self, name: str, in_loops: bool = True
  ) -> Iterator[tuple[Instruction, int]]:
    """Yields the instructions that a computation launches, and how often."""
    for instruction in self.computations[name]:
      operation = instruction.operation
      parts = self.called(instruction)
      if not parts and operation not in _FREE:
        if not operation.endswith(_SECOND):
          yield instruction, 1
        continue
      times = 1
      if operation == "while":
        times = (self.trips(instruction) or 1) if in_loops else 0
      for part in parts if times else ():
        for inner, count in self.launched(part, in_loops):
          yield inner, times * count

  def loops(self, name: str | None = None, depth: int = 0) -> list[Loop]:
    """The loops below a computation, each before the loops inside it."""
    loops = []
    for instruction in self.computations[name or self.entry]:
      is_loop = instruction.operation == "while"
      if is_loop:
        loops.append(self._loop(instruction, depth))
      for part in self.called(instruction):
        loops += self.loops(part, depth + is_loop)
    return loops

  def _loop(self, instruction: Instruction, depth: int) -> Loop:
    [body] = self.called(instruction)
    trips = self.trips(instruction)
    launched = [*self.launched(body)]
    if trips is None:  # The condition is computed, and read by the host.
      launched += self.launched(self.condition(instruction))
    operations, cycles = Counter(), 0
    for inner, count in launched:
      operations[inner.operation] += count
      estimate = _CYCLES.search(inner.line)
      cycles += count * int(estimate[1]) if estimate else 0
    # XLA may make a loop anew, without its name.
    lines = [instruction.line, *(inner.line for inner, _ in launched)]
    names = (match[1] for line in lines if (match := _SOURCE.search(line)))
    return Loop(
      trips=trips,
      depth=depth,
      kernels=sum(operations.values()),
      fusions=operations["fusion"],
      cycles=cycles,
      collectives=_waits(operations),
      backward="transpose(" in next(names, ""),
    )

  def collectives(self) -> tuple[int, int]:
    """Instructions that wait for other devices: inside, and outside loops.

    Inside, those of one iteration of each outer loop count.
    """
    outside = Counter(
      i.operation for i, _ in self.launched(self.entry, in_loops=False)
    )
    inside = sum(x.collectives for x in self.loops() if not x.depth)
    return inside, _waits(outside)

  def precisions(self) -> dict[str, int]:
    """The number of matrix products by their precision.

    `highest`: the factors are not rounded. `high`: three products of bfloat16
    parts, on a TPU. An algorithm, for example `dot_tf32_tf32_f32`. Otherwise
    the types of the factors; a TPU rounds f32 to bfloat16, a GPU to TF32.
    """
    counts = Counter()
    for instructions in self.computations.values():
      types = {i.name: i.shape.partition("[")[0] for i in instructions}
      for i in instructions:
        if i.operation in ("dot", "convolution"):
          precision = _PRECISION.search(i.line)
          _, _, inside = i.line.partition(f" {i.operation}(")
          factors = re.findall(r"[\w.\-]+", inside)
          names = {types[factor] for factor in factors[:2]}
          counts[precision[1] if precision else " ".join(sorted(names))] += 1
        elif "__cublas" in i.line:
          exact = '"HIGHEST","HIGHEST"' in i.line
          counts["highest" if exact else "cuBLAS"] += 1
    return dict(counts)


def _waits(operations: Counter) -> int:
  """The number of collectives among counted instructions."""
  return sum(n for op, n in operations.items() if op.startswith(_COLLECTIVES))
