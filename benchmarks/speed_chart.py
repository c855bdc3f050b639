"""The chart docs/speed.png and its sentence in README.md."""

import statistics
from pathlib import Path
from textwrap import fill
from typing import Any

from speed_page import OURS, TYPES, Ratio, ratio

_ONE, _MANY = "sampling, 2x128, 1 at once", "sampling, 2x512, 64 at once"
# What the chart has, from top to bottom: part, case, type, label.
BARS = (
  ("training", "2x128 lstm V65", "float32", "train LSTM 2x128"),
  ("training", "2x512 lstm V65", "float32", "train LSTM 2x512"),
  ("training", "2x512 lstm V65", "bfloat16", "train LSTM 2x512, bfloat16"),
  ("training", "2x128 lstm V10000", "float32", "train 2x128, 10,000 symbols"),
  ("training", "2x512 gru V65", "float32", "train GRU 2x512"),
  ("training", "towers 2x512 lstm V65", "float32", "train two towers 2x512"),
  ("inference", _ONE, "float32", "sample a text, 2x128"),
  ("inference", _MANY, "float32", "sample 64 texts, 2x512"),
  ("inference", "scoring, 2x512", "float32", "score a text, 2x512"),
)
_COLOURS = {"float32": "tab:blue", "bfloat16": "tab:orange"}


def bars(records: dict[str, Any]) -> list[tuple[str, str, Ratio]]:
  """Returns label, type and ratio of the bars that were measured."""
  drawn = []
  for part, case, products, label in BARS:
    row = records.get(part, {}).get("rows", {}).get(case)
    measured = ratio(row, products) if row else None
    if measured:
      drawn.append((label, products, measured))
  return drawn


def draw(machine: str, records: dict[str, Any], path: Path):
  """Draws how many times as long the best other library takes."""
  from matplotlib.ticker import NullLocator

  from seqrnn.runtime import pictures

  shown = bars(records)
  drawn = pictures.create(7.27, 0.9 + 0.36 * len(shown))  # 800 pixels.
  axes = drawn.add_subplot()
  low = min(bar.least for *_, bar in shown)
  high = max(bar.most for *_, bar in shown)
  for y, (_, products, bar) in enumerate(shown):
    # From 1 to the ratio: to the left where the other library is faster.
    axes.barh(y, bar.median - 1, left=1, height=0.6, color=_COLOURS[products])
    axes.plot([bar.least, bar.most], [y, y], color="black", linewidth=1)
    text = f"{bar.median:.{1 if bar.median > 10 else 2}f}x {bar.peer}"
    weight = "bold" if bar.median < 1 else "normal"
    at = 1.04 * max(bar.most, 1)
    axes.text(at, y, text, va="center", fontsize=9, weight=weight)
  axes.axvline(1, color="black", linewidth=1)
  ticks = [t for t in (0.5, 1, 2, 3, 5, 10, 20, 30, 50) if low < t < 1.5 * high]
  axes.set(
    xscale="log",
    xlim=(min(0.9, 0.95 * low), 2.5 * high),  # The right has room for words.
    xlabel=f"time of the fastest other library, {OURS} = 1 (right of 1: {OURS}"
    " is faster)",
    yticks=range(len(shown)),
    yticklabels=[label for label, *_ in shown],
  )
  axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
  axes.xaxis.set_minor_locator(NullLocator())
  axes.tick_params(axis="y", length=0)
  axes.spines[["top", "right"]].set_visible(False)
  axes.invert_yaxis()
  pictures.grid(axes, "x")
  axes.set_title(machine, fontsize=10)
  pictures.save(drawn, path)


def sentence(machine: str, records: dict[str, Any]) -> str:
  """Returns what the figures are in one sentence, and the chart."""
  parts, every = [], []
  for part, what in (
    ("training", "a training step"),
    ("inference", "sampling and scoring"),
  ):
    rows = records.get(part, {}).get("rows", {}).values()
    ratios = [ratio(row, products) for row in rows for products in TYPES]
    medians = [one.median for one in ratios if one]
    every += medians
    if medians:
      parts.append(
        f"{min(medians):.2f} to {max(medians):.3g} times as long for {what}"
        f" (median {statistics.median(medians):.2f})"
      )
  slower = sum(one < 1 for one in every)
  text = (
    f"On {machine}, the fastest of PyTorch, Keras on JAX and flax takes"
    f" {' and '.join(parts)}; {OURS} is slower in {slower} of"
    f" {len(every)} [cases](benchmarks/README.md)."
  )
  described = "; ".join(
    f"{label} {bar.median:.3g}" for label, _, bar in bars(records)
  )
  chart = f"![Time of the fastest other library, {OURS} = 1: {described}]"
  return f"{fill(text, 80)}\n\n{chart}(docs/speed.png)"
