"""benchmarks/shop_log.py: orders go wrong as their labels say."""

import csv
from collections import defaultdict

from benchmarks import shop_log


def test_orders_go_wrong_as_their_labels_say(tmp_path):
  path = tmp_path / "shop.log"
  shop_log.main([str(path), "--orders=600"])
  with path.with_suffix(".csv").open() as file:
    kinds = {row["session"]: row["label"] for row in csv.DictReader(file)}
  orders = defaultdict(list)
  times = []
  for line in path.read_text().splitlines():
    date, time, _, _, name, event = line.split(" ", 5)
    times.append(date + time)
    orders[name].append(event)
  assert times == sorted(times) and len(orders) == 600
  assert set(kinds.values()) == {
    *("normal", "unpaid", "retries", "lost", "error")
  }
  for name, events in orders.items():
    declined = events.count("payment declined")
    early = "parcel handed to the carrier" in events and events.index(
      "parcel handed to the carrier"
    ) < events.index("payment confirmed")
    assert early == (kinds[name] == "unpaid")
    assert (declined > 1) == (kinds[name] == "retries")
    assert (events[-1] == "payment confirmed") == (kinds[name] == "lost")
    assert any("error" in e for e in events) == (kinds[name] == "error")
  first = path.read_bytes()
  shop_log.main([str(path), "--orders=600"])
  assert path.read_bytes() == first
