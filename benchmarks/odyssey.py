"""The search of "LSTM: A Search Space Odyssey", for each of its nine cells."""

import argparse
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
CELLS = {
  "odyssey": "all there is",
  "odyssey_cifg": "coupled gates",
  "odyssey_np": "no peepholes",
  "odyssey_nfg": "no forget gate",
  "odyssey_nog": "no output gate",
  "odyssey_nig": "no input gate",
  "odyssey_niaf": "no input activation",
  "odyssey_noaf": "no output activation",
  "odyssey_fgr": "full gate recurrence",
}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=Path)
  parser.add_argument("--trials", type=int, default=20)
  parser.add_argument("--cache", type=Path, default=Path("runs/odyssey"))
  given = parser.parse_args()
  for cell in CELLS:
    subprocess.run(
      [
        sys.executable,
        "run.py",
        "--config=configs/odyssey.py",
        "--mode=search",
        f"--workdir={given.cache.resolve() / cell}",
        f"--config.model.cell={cell}",
        f"--config.search.trials={given.trials}",
        "--config.search.workers=1",
        "--config.data.source=files",
        f"--config.data.path={given.data.resolve()}",
      ],
      cwd=_ROOT,
      check=True,
    )


if __name__ == "__main__":
  main()
