r"""Follows the log of four services through a deploy, with the timer's refresh.

  python benchmarks/deploy_log.py FOLDER 4

Two days of the sessions of changing_log.py train; 0.3 % of them are anomalous.
At noon of the third day a line of the checkout changes. From then on refreshes
are six hours apart. Of the fifteen incidents, a session each, three come in the
morning, six in the five hours after the deploy, and six on the fourth day. For
each of these times, printed are the incidents that have an alarm, the alarms
about the new version, and the other false ones.
"""

import argparse
import json
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from changing_log import _ANOMALIES, ROOT, anomaly, session, timed

_BEGIN = datetime(2026, 5, 4, tzinfo=UTC).timestamp()
_DAILY, _DIRTY, _TRAIN, _DEPLOY, _END = 1600, 0.003, 2.0, 2.5, 4.5  # Days.
_INCIDENTS = [(2.1, 2.4)] * 3 + [(2.5, 2.7)] * 6 + [(3.3, 4.3)] * 6


def write(seed: int) -> tuple[list, dict[str, tuple[float, str]]]:
  """The lines with their times in days, and session -> time and kind."""
  rng = random.Random(seed)
  kinds = rng.sample([*_ANOMALIES, *_ANOMALIES], len(_INCIDENTS))
  starts = [
    (rng.uniform(*at), kind) for at, kind in zip(_INCIDENTS, kinds, strict=True)
  ]
  for _ in range(int(_END * _DAILY)):
    at, is_dirty = rng.uniform(0, _END), rng.random() < _DIRTY
    is_dirty = is_dirty and at < _TRAIN
    starts.append((at, rng.choice(_ANOMALIES) if is_dirty else "normal"))
  lines, sessions = [], {}
  for number, (begin, kind) in enumerate(sorted(starts)):
    is_new, at, name = begin >= _DEPLOY, begin, f"r-{number:05d}"
    sessions[name], is_normal = (begin, kind), kind == "normal"
    steps = timed(rng, session(rng, is_new)) if is_normal else []
    for pause, step, text in steps or anomaly(rng, kind, is_new):
      at += pause / 86400
      time = f"{datetime.fromtimestamp(_BEGIN + at * 86400, UTC):%F %T.%f}"
      lines.append((at, f"{time} {step.level} [{name}] {text}\n"))
  return sorted(lines), sessions


def follow(folder: Path, seed: int, lines: list) -> float:
  """Trains, follows and refreshes; returns when the next model was there."""
  folder.mkdir(parents=True)
  log, workdir, done = folder / "live.log", folder / "run", 0.0

  def run(*flags: str, until: float = 0.0):
    nonlocal done
    new = "".join(line for at, line in lines if done <= at < until)
    done = max(done, until)
    log.write_text("".join(line for at, line in lines if at < done))
    command = sys.executable, str(ROOT / "run.py"), f"--workdir={workdir}"
    how = {"input": new, "text": True, "check": True, "capture_output": True}
    subprocess.run([*command, *flags], **how)

  flags = "--config=configs/logs.py", f"--config.seed={seed}"
  data = f"path={log}", "log_header=none", r"log_session=\[(r-\d+)\]"
  flags += tuple(f"--config.data.{x}" for x in (*data, "log_format=auto"))
  run(*flags, until=_TRAIN)
  follower = "--mode=detect", "--follow"
  run("--mode=detect")
  run(*follower, until=_DEPLOY)
  while not (workdir / "refresh.json").exists() and done < _END:
    run(*follower, until=done + 0.25)
    run("--mode=refresh", f"--config.detect.input={log}")
    refreshed = done
  run(*follower, until=2 * _END)
  return refreshed


def main():
  """Prints a table of the seeds and times."""
  parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
  parser.add_argument("folder", type=Path)
  parser.add_argument("seeds", type=int)
  flags = parser.parse_args()
  print("| seed | days | sessions | incidents | named | new version | false |")
  print("| --- " * 7 + "|")
  for seed in range(flags.seeds):
    folder, (lines, sessions) = flags.folder / str(seed), write(seed)
    then = follow(folder.resolve(), seed, lines)
    text = (folder / "run" / "follow" / "alarms.jsonl").read_text()
    alarms = {row["number"]: row for row in map(json.loads, text.splitlines())}
    for begin, end in ((_TRAIN, _DEPLOY), (_DEPLOY, then), (then, _END)):
      some = {k: v[1] for k, v in sessions.items() if begin <= v[0] < end}
      named = [x for x in alarms.values() if x["session"] in some]
      false = [x for x in named if some[x["session"]] == "normal"]
      new = [x for x in false if x["unknown_events"]]
      incidents = {k for k, kind in some.items() if kind != "normal"}
      found = len(incidents & {x["session"] for x in named})
      cells = [seed, f"{begin:.2f} to {end:.2f}", len(some), len(incidents)]
      cells += [found, len(new), len(false) - len(new)]
      print("|", *(f"{cell} |" for cell in cells), flush=True)


if __name__ == "__main__":
  main()
