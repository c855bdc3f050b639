r"""Writes two days of the access log of a real nginx, with labelled attackers.

  python benchmarks/nginx_log.py nginx

The program starts nginx on a loopback port, with the site of an invented shop,
and sends the requests of a day's clients in the order of their times, each with
its address (X-Forwarded-For) and the time of the simulated day. nginx logs both
in place of the real ones. access.log.1 is the first day, access.log the second.
Both have 1,000 normal clients. The first day also has one scanner, the second
two attackers of each kind:

- scanner: asks for files that other software has.
- brute force: tries passwords.
- walker: reads other people's orders, id by id.
- no cart: orders again and again, with nothing in the cart.
- scraper: reads all pages of all categories, and nothing else.

labels.csv has the kind of each client, "normal" for most. The same seed gives
the same requests.
"""

import argparse
import csv
import datetime
import http.client
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_TIME = "%d/%b/%Y:%H:%M:%S +0000"
_CLIENTS = 1000  # Normal ones of a day.
_NAMES = ["tea", "pots", "cups", "sugar", "milk", "cake", "forks", "plates"]
_FILES = [
  *(".env", ".git/config", "wp-login.php", "xmlrpc.php", "phpmyadmin/"),
  *("admin.php", "backup.zip", "config.php.bak", "server-status", ".aws/key"),
]
_KINDS = ["scanner", "brute force", "walker", "no cart", "scraper"]
_STYLE = ["GET /static/shop.css", "GET /static/shop.js"]
_RIGHT, _WRONG = "POST /login right", "POST /login wrong"


def page(rng: random.Random) -> str:
  """A page of the shop."""
  name, number = rng.choice(_NAMES), rng.randrange(300)
  kinds = {
    f"/products/{number}": 6,
    f"/category/{name}?page={rng.randint(1, 4)}": 3,
    f"/search?q={name}&sort=price": 2,
    f"/blog/{name}-and-{rng.choice(_NAMES)}": 1,
    f"/old/{name}.html": 0.2,  # There is no such page any more.
  }
  return "GET " + rng.choices([*kinds], [*kinds.values()])[0]


def visit(rng: random.Random) -> Iterator[str]:
  """The requests of a normal client."""
  if rng.random() < 0.03:  # The crawler of a search engine.
    yield "GET /robots.txt"
    yield from (page(rng) for _ in range(rng.randint(2, 12)))
    return
  yield from [rng.choice(["GET /", page(rng)]), *_STYLE]
  if rng.random() < 0.3:
    yield "GET /favicon.ico"
  for _ in range(min(int(rng.expovariate(0.25)), 25)):
    yield page(rng)
    if rng.random() < 0.2:
      yield f"GET /api/stock/{rng.randrange(300)}"
  user = rng.random()
  if user < 0.25:  # Logs in.
    yield "GET /login"
    while rng.random() < 0.2:
      yield _WRONG
    yield from [_RIGHT, "GET /account"]
    for _ in range(rng.randint(0, 2)):
      yield f"GET /orders/{rng.randrange(9000)}"
  if user < 0.15 or user > 0.85:  # Fills the cart, and may order.
    for _ in range(rng.randint(1, 3)):
      yield f"GET /products/{rng.randrange(300)}"
      yield f"POST /cart/add?product={rng.randrange(300)}"
      yield "GET /cart"
    if rng.random() < 0.6:
      yield from ["GET /checkout", "POST /checkout"]
      yield f"GET /orders/{rng.randrange(9000)}"


def attack(rng: random.Random, kind: str) -> Iterator[str]:
  """The requests of an attacker."""
  first = rng.randrange(200)
  if kind == "scanner":
    yield from (f"GET /{name}" for name in rng.sample(_FILES, 9))
  elif kind == "brute force":
    yield "GET /login"
    yield from [_WRONG] * rng.randint(20, 60)
  elif kind == "walker":
    yield from ["GET /login", _RIGHT, "GET /account"]
    yield from (f"GET /orders/{first + n}" for n in range(40))
  elif kind == "no cart":
    yield from ["GET /", *_STYLE]
    for n in range(rng.randint(4, 8)):
      yield from ["POST /checkout", f"GET /orders/{first + n}"]
  else:
    for name in _NAMES:
      yield from (f"GET /category/{name}?page={n}" for n in range(1, 15))


def requests(rng: random.Random, day: int) -> list[tuple[float, str, str, str]]:
  """The requests of a day: second, address, kind of the client, request."""
  attackers, sent = ["scanner"] if day == 1 else _KINDS * 2, []
  for number, kind in enumerate(["normal"] * _CLIENTS + attackers):
    address = f"10.{day}.{number // 250}.{number % 250 + 1}"
    normal = kind == "normal"
    at = rng.triangular(0, 80_000, 60_000)
    for request in visit(rng) if normal else attack(rng, kind):
      sent.append((at, address, kind, request))
      is_file = "/static/" in request or not normal
      at += rng.expovariate(1.0 if is_file else 1 / 30)
  return sorted(sent)


def send(port: int, day: int, sent: list[tuple[float, str, str, str]]):
  """Sends requests to nginx."""
  connection = http.client.HTTPConnection("127.0.0.1", port)
  midnight = datetime.datetime(2026, 3, day)
  for at, address, _, request in sent:
    now = midnight + datetime.timedelta(seconds=at)
    headers = {"X-Forwarded-For": address, "X-Time": f"{now:{_TIME}}"}
    headers["X-Password"] = request[len("POST /login ") :]
    connection.request(*request.split()[:2], headers=headers)
    connection.getresponse().read()


def main(folder: Path, seed: int = 0):
  """Writes the logs and the labels."""
  folder.mkdir(parents=True, exist_ok=True)
  rng, labels, log = random.Random(seed), {}, folder.resolve() / "access.log"
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
  config = log.with_name("nginx.conf")
  site = Path(__file__).with_name(config.name).read_text()
  site = site.replace("PORT", str(port)).replace("FOLDER", str(log.parent))
  config.write_text(site)
  for day in (1, 2):
    log.unlink(missing_ok=True)
    sent = requests(rng, day)
    labels |= {address: kind for _, address, kind, _ in sent}
    with subprocess.Popen(["nginx", "-c", str(config)]) as nginx:
      while nginx.poll() is None and not log.exists():
        time.sleep(0.1)
      try:
        send(port, day, sent)
      finally:
        nginx.terminate()
    if day == 1:
      log.rename(log.with_name("access.log.1"))
  with (folder / "labels.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("session", "label"), *labels.items()])


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=Path, help="where the logs are written")
  parser.add_argument("--seed", type=int, default=0)
  main(**vars(parser.parse_args()))
