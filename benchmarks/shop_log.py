r"""Writes the log of an invented shop, in which 3 % of the orders go wrong.

  python benchmarks/shop_log.py shop.log

The lines of orders interleave, as in the log of a server. An order is a session
of 5 to 29 lines. Anomalous orders are spread over the whole log, so they are in
the training part, too. Their kinds are:

- unpaid: the parcel is handed over before the payment is confirmed.
- retries: the payment is declined 4 to 8 times, normally at most once.
- lost: the order ends when it is paid.
- error: a line of one of six errors; each sixth of the log has a new one.

With `--slow=0.03`, 3 % of the other orders are slow: their pauses are ten times
as long, and all else is as usual.

Beside the log, shop.csv has the kind of each order, "normal" for most; it can
be read as labels. The same seed gives the same files.
"""

import argparse
import csv
import datetime
import random
from pathlib import Path

_START = datetime.datetime(2026, 3, 2, 8)
_BETWEEN, _PAUSE = 20.0, 40.0  # Mean seconds between orders, and lines.
_ANOMALOUS = 0.03
_ERRORS = [
  "stock server does not answer",
  "lock of the cart expired",
  "address refused by the carrier",
  "label printer is out of paper",
  "version conflict, read again",
  "invoice not written, disk is full",
]


def order(rng: random.Random, kind: str, errors: list[str]) -> list[str]:
  """The events of an order, the texts of lines without time and name."""
  lines = [f"received from 10.0.{rng.randrange(9)}.{rng.randrange(200)}"]
  lines.append("customer checked")
  if rng.random() < 0.2:
    item = rng.randrange(500)
    lines += [f"item {item} out of stock", f"item {item} ordered"]
  lines += [
    f"item {rng.randrange(500)} reserved" for _ in range(rng.randint(1, 3))
  ]
  paying = [f"payment of {rng.randint(5, 300)}.00 requested"]
  declined = int(rng.random() < 0.2)
  if kind == "retries":
    declined = rng.randint(4, 8)
  paying += ["payment declined", paying[0]] * declined
  paid = ["payment confirmed"]
  packing = ["parcel packed", f"label {rng.randrange(10**6)} printed"]
  rng.shuffle(packing)
  packing.append("parcel handed to the carrier")
  match kind:
    case "unpaid":
      lines += [*paying, *packing, *paid, "closed"]
    case "lost":
      lines += paying + paid
    case _:
      lines += [*paying, *paid, *packing, "closed"]
  if kind == "error":
    lines.insert(rng.randrange(2, len(lines)), f"error: {rng.choice(errors)}")
  return lines


def main(arguments: list[str] | None = None):
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("log", type=Path)
  parser.add_argument("--orders", type=int, default=6000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--slow", type=float, default=0.0)
  flags = parser.parse_args(arguments)
  rng = random.Random(flags.seed)
  kinds, lines, begin = {}, [], 0.0
  for number in range(flags.orders):
    name = f"order-{number:05}"
    bad = rng.random() < _ANOMALOUS
    kinds[name] = (
      rng.choice(("unpaid", "retries", "lost", "error")) if bad else "normal"
    )
    pause = _PAUSE
    if not bad and flags.slow and rng.random() < flags.slow:
      kinds[name], pause = "slow", 10 * _PAUSE
    clock = begin = begin + rng.expovariate(1 / _BETWEEN)
    errors = _ERRORS[: 1 + len(_ERRORS) * number // flags.orders]
    for event in order(rng, kinds[name], errors):
      lines.append((clock, f"{name} {event}"))
      clock += rng.expovariate(1 / pause)
  lines.sort()
  with flags.log.open("w") as file:
    for seconds, line in lines:
      time = _START + datetime.timedelta(seconds=seconds)
      file.write(f"{time:%Y-%m-%d %H:%M:%S} INFO shop: {line}\n")
  with flags.log.with_suffix(".csv").open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([("session", "label"), *kinds.items()])


if __name__ == "__main__":
  main()
