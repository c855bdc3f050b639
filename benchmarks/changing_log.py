r"""Detects in the logs of an invented service that changes; makes a table.

  python benchmarks/changing_log.py FOLDER --seeds=8 --first=0

A log is of 2,000 sessions of a day, the examined one of 2,000 of the next day,
and 30 of each of nine kinds of anomalies. Its variants are:

- clean: nothing changes.
- dirty: 2 % of the training sessions are anomalous.
- deploy: after 80 % of the training period, a line of a checkout changes.
- night: one session in ten is of a fifth kind, which runs from 1 to 5 o'clock.

The table has the mean over the seeds of the share of normal sessions with a p
of at most .05, .01 and .005, and of the recall of each kind of anomaly at .005.
`old` is the share at .005 where the examined log has the training log's share
of lines of the new version. FOLDER keeps the runs; a run that is finished is
not repeated. The same seed gives the same logs.
"""

import argparse
import csv
import datetime
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
VARIANTS = "clean", "dirty", "deploy", "night"
_DAY, _HOUR = 86400, 3600
_BEGIN = datetime.datetime(2026, 5, 4, 6, tzinfo=datetime.UTC).timestamp()
_SESSIONS, _EACH, _RATES = 2000, 30, (0.05, 0.01, 0.005)
_ANOMALIES = (
  *("missing", "retry", "swap", "value", "slow"),
  *("unknown", "short", "long", "foreign"),
)
_ERRORS = [
  "connection reset by peer while reading",
  "illegal state, retry scheduled",
  "out of memory in worker",
]


class Step(NamedTuple):
  """A line: its text, how its value is drawn, its pause, if it may lack."""

  text: str
  value: str = ""  # "low-high", "a|b", or "~median,sigma".
  pause: float = 1.0
  optional: bool = False
  level: str = "INFO"

  def line(self, rng: random.Random, factor: float = 1.0) -> str:
    """The text with a new value."""
    if not self.value:
      return self.text
    value = _draw(rng, self.value)
    value = value * factor if factor != 1 else value
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return self.text.format(text)


def _draw(rng: random.Random, value: str) -> float:
  if value[0] == "~":
    median, sigma = map(float, value[1:].split(","))
    return rng.lognormvariate(0, sigma) * median
  if "|" in value:
    return rng.choice([int(x) for x in value.split("|")])
  return rng.randint(*map(int, value.split("-")))


def checkout(rng: random.Random, new: bool) -> Iterator[Step]:
  yield Step("checkout started with {} items", "1-9", 0.2)
  yield Step("cart loaded in {} ms", "~40,.4", 0.3)
  view = Step("item viewed", "", 6, True)
  steps = view, view, Step("quantity changed to {}", "1-5", 4, True)
  steps = *steps, Step("address edited", "", 12, True)
  for _ in range(rng.choice([0, 0, 1, 2, 3, 4])):
    yield rng.choice(steps)
  if rng.random() < 0.2:
    yield Step("coupon applied, {} EUR off", "1-20", 2, True)
  yield Step("total is {} EUR", "~60,.6", 0.3)
  text = "charge of {} EUR sent to gateway"
  text += " eu2 with idempotency key" * new
  yield Step(text, "~60,.6", 4)
  for _ in range(2):
    if rng.random() >= 0.1:
      break
    yield Step("charge declined by gateway", "", 1.5, True, "WARN")
    yield Step(text, "~60,.6", 6, True)
  yield Step("charge confirmed after {} ms", "~350,.35", 0.6)
  yield from rng.sample(_LAST, 3)
  yield Step("checkout finished", "", 0.1)


_LAST = [
  Step("stock reserved in warehouse {}", "1-4", 0.3),
  Step("confirmation mail queued", "", 0.2),
  Step("loyalty points booked", "", 0.2),
]


def login(rng: random.Random, _: bool) -> Iterator[Step]:
  text = "login attempt from browser"
  yield Step(text, "", 0.2)
  for _n in range(3):
    if rng.random() >= 0.15:
      break
    yield Step("wrong password", "", 0.3, True, "WARN")
    yield Step(text, "", 5, True)
  yield Step("password accepted after {} ms", "~90,.3", 0.2)
  yield Step("token issued for {} minutes", "30|60|120", 0.1)
  yield Step("profile loaded in {} ms", "~25,.4", 0.3)
  steps = [
    Step("preferences saved", "", 10, True),
    Step("inbox of {} messages shown", "0-30", 8, True),
    Step("search took {} ms", "~120,.4", 9, True),
  ]
  for _n in range(rng.choice([0, 0, 0, 1, 2, 3])):
    yield rng.choice(steps)
  if rng.random() < 0.7:
    yield Step("logged out", "", 40, True)


def report(rng: random.Random, _: bool) -> Iterator[Step]:
  yield Step("report job accepted, priority {}", "1-3", 0.2)
  yield Step("query planned in {} ms", "~15,.5", 0.4)
  for _n in range(rng.randint(2, 12)):
    yield Step("page of {} rows fetched", "400-500", 1.2, True)
  yield Step("aggregated in {} ms", "~200,.3", 0.8)
  yield Step("report of {} kB written", "~90,.5", 0.5)
  yield Step("owner notified", "", 0.2)
  yield Step("report job finished", "", 0.1)


def upload(rng: random.Random, _: bool) -> Iterator[Step]:
  yield Step("upload accepted, {} kB announced", "~900,.8", 0.2)
  for _n in range(rng.randint(2, 10)):
    yield Step("chunk of {} kB received", "120-128", 0.7, True)
    if rng.random() < 0.06:
      yield Step("client is throttled", "", 2, True, "WARN")
  yield Step("virus scan clean after {} ms", "~700,.3", 1)
  yield Step("object stored on disk {}", "1-6", 0.3)
  if rng.random() < 0.5:
    yield Step("thumbnail made in {} ms", "~60,.4", 0.2, True)
  yield Step("upload acknowledged", "", 0.1)


def night(rng: random.Random, _: bool) -> Iterator[Step]:
  yield Step("nightly sync of partition {}", "1-12", 0.2)
  yield Step("lock taken", "", 0.2)
  for _n in range(rng.randint(3, 6)):
    yield Step("copied {} rows to replica", "9000-11000", 5, True)
  yield Step("replica verified in {} ms", "~4000,.2", 6)
  yield Step("lock released", "", 0.1)


_KINDS = checkout, login, report, upload
Timed = list[tuple[float, Step, str]]  # Pause, step and line.


def session(rng: random.Random, new: bool, nightly: bool = False) -> list[Step]:
  """The steps of a normal session."""
  kind = night if nightly else rng.choices(_KINDS, [30, 35, 15, 20])[0]
  return list(kind(rng, new))


def timed(rng: random.Random, steps: Sequence[Step]) -> Timed:
  """The steps with pauses and values."""
  return [
    (rng.lognormvariate(0, 0.5) * step.pause, step, step.line(rng))
    for step in steps
  ]


def anomaly(rng: random.Random, kind: str, new: bool) -> Timed:
  """An anomalous session."""
  while True:
    steps = session(rng, new)
    changed = _changed(rng, kind, steps, new)
    if not changed:
      continue
    lines = timed(rng, changed)
    if kind == "slow":
      n = rng.randrange(1, len(lines))
      pause, step, line = lines[n]
      lines[n] = pause * rng.uniform(60, 200), step, line
    if kind == "value":
      if not (
        some := [
          n for n, x in enumerate(lines) if x[1].value and "ms" in x[1].text
        ]
      ):
        continue
      n = rng.choice(some)
      pause, step, _ = lines[n]
      value = _draw(rng, step.value) * rng.uniform(15, 60)
      lines[n] = pause, step, step.text.format(f"{value:.1f}")
    return lines


def _changed(
  rng: random.Random, kind: str, steps: list[Step], new: bool
) -> list[Step]:
  """The steps of an anomaly; empty: these steps do not allow it."""
  count = len(steps)
  needed = [n for n in range(1, count - 1) if not steps[n].optional]
  match kind:
    case "missing":
      n = rng.choice(needed)
      return steps[:n] + steps[n + 1 :]
    case "retry":
      n = rng.choice(needed)
      return steps[:n] + steps[n : n + 1] * rng.randint(5, 10) + steps[n:]
    case "swap":
      pairs = list(zip(steps, steps[1:], strict=False))
      some = [
        n
        for n, (one, two) in enumerate(pairs)
        if one.text != two.text
        and not (one.optional or two.optional)
        and not {one, two} <= set(_LAST)
      ]
      n = rng.choice(some)
      return [*steps[:n], *pairs[n][::-1], *steps[n + 2 :]]
    case "unknown":
      n = rng.randint(1, count - 1)
      error = Step(rng.choice(_ERRORS), "", 0.3, level="ERROR")
      return [*steps[:n], error, *steps[n:]]
    case "short":
      is_login = "login" in steps[0].text
      return [] if is_login else steps[: rng.randint(1, 2)]
    case "long":
      loops = [
        n for n, x in enumerate(steps) if x.text[:5] in ("page ", "chunk")
      ]
      if not loops:
        return []
      n = loops[0]
      return steps[:n] + steps[n : n + 1] * rng.randint(20, 40) + steps[n:]
    case "foreign":
      other = session(rng, new)
      if other[0] == steps[0]:
        return []
      return steps[: max(2, count // 2)] + other[len(other) // 2 :]
  return steps


def write(folder: Path, seed: int, variant: str) -> float:
  """Writes train.log, test.log and kinds.csv.

  Returns:
    the share of the first 90 % of training that has the new version.
  """
  rng = random.Random(seed * 7 + 1)
  number, kinds, names, new_ones = rng.randrange(10**5), {}, [], []
  days: list[list[tuple[str, float, Timed]]] = [[], []]

  def add(day: int, start: float, lines: Timed, kind: str):
    name = f"r-{number + len(names) + 1:06d}"
    names.append(name)
    days[day].append((name, _BEGIN + day * _DAY + start, lines))
    if day:
      is_new = any("idempotency" in line for *_, line in lines)
      kinds[name] = (
        "normal, new" if (kind, is_new) == ("normal", True) else kind
      )

  for day in (0, 1):
    starts = sorted(rng.uniform(0, _DAY * 0.98) for _ in range(_SESSIONS))
    nightly = [
      variant == "night"
      and 1 <= (_BEGIN + x) % _DAY / _HOUR < 5
      and rng.random() < 0.6
      for x in starts
    ]
    for start, at_night in zip(starts, nightly, strict=True):
      new = variant == "deploy" and (day == 1 or start >= 0.8 * _DAY)
      if variant == "dirty" and not day and rng.random() < 0.02:
        lines = anomaly(rng, rng.choice(_ANOMALIES), new)
      else:
        lines = timed(rng, session(rng, new, at_night))
      new_ones.append(any("idempotency" in line for *_, line in lines))
      add(day, start, lines, "normal")
  for kind in _ANOMALIES:
    for _ in range(_EACH):
      start = rng.uniform(0, _DAY * 0.98)
      add(1, start, anomaly(rng, kind, variant == "deploy"), kind)
  for day, name in enumerate(("train.log", "test.log")):
    events = []
    for session_name, at, lines in days[day]:
      for pause, step, line in lines:
        at += pause
        events.append((at, f"{step.level} [{session_name}] {line}\n"))
    with (folder / name).open("w") as file:
      for at, line in sorted(events, key=lambda event: event[0]):
        time = datetime.datetime.fromtimestamp(at, datetime.UTC)
        file.write(f"{time:%Y-%m-%d %H:%M:%S}.{int(at % 1 * 1000):03d} {line}")
  with (folder / "kinds.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("session", "kind"), *kinds.items()])
  return float(np.mean(new_ones[: int(0.9 * _SESSIONS)]))


def measure(folder: Path, seed: int, variant: str) -> dict[str, float]:
  """Trains and detects, unless it is done; returns the figures."""
  folder.mkdir(parents=True, exist_ok=True)
  share, workdir = write(folder, seed, variant), folder / "run"
  table = workdir / "detect" / "sessions.csv"
  if not table.exists():
    run = [sys.executable, str(ROOT / "run.py"), f"--workdir={workdir}"]
    fields = {"path": folder / "train.log", "log_header": "none"}
    fields |= {"log_format": "auto", "log_session": r"\[(r-\d+)\]"}
    data = [f"--config.data.{name}={value}" for name, value in fields.items()]
    more = f"--config.seed={seed}"
    path = f"--config.detect.path={folder / 'test.log'}"
    for flags in (
      ["--config=configs/logs.py", more, *data],
      ["--mode=detect", path],
    ):
      subprocess.run([*run, *flags], check=True, stdout=subprocess.DEVNULL)
  with (folder / "kinds.csv").open(newline="") as file:
    kinds = dict(csv.reader(file))
  with table.open(newline="") as file:
    rows = list(csv.DictReader(file))
  kind = np.array([kinds[row["session"]] for row in rows])
  p = np.array([float(row["p_value"]) for row in rows])
  normal = np.char.startswith(kind, "normal")
  figures = {f"{x:g}": (p[normal] <= x * (1 + 1e-9)).mean() for x in _RATES}
  flagged = p <= _RATES[-1] * (1 + 1e-9)
  old = flagged[kind == "normal"].mean()
  new = flagged[kind == "normal, new"].mean() if variant == "deploy" else old
  figures["old"] = (1 - share) * old + share * new
  figures["recall"] = flagged[~normal].mean()
  figures |= {name: flagged[kind == name].mean() for name in _ANOMALIES}
  return figures


def main():
  """Prints a table of the variants."""
  parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
  parser.add_argument("folder", type=Path)
  parser.add_argument("--seeds", type=int, default=8)
  parser.add_argument("--first", type=int, default=0)
  parser.add_argument("--variants", default=",".join(VARIANTS))
  arguments = parser.parse_args()
  for number, variant in enumerate(arguments.variants.split(",")):
    every = [
      measure(arguments.folder.resolve() / f"{variant}-{seed}", seed, variant)
      for seed in range(arguments.first, arguments.first + arguments.seeds)
    ]
    if not number:
      print(
        "| log |", " | ".join(every[0]), "|\n|", "--- |" * (len(every[0]) + 1)
      )
    mean = [np.mean([figures[name] for figures in every]) for name in every[0]]
    cells = [f"{x:.4f}" if n < 4 else f"{x:.2f}" for n, x in enumerate(mean)]
    print(f"| {variant} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
  main()
