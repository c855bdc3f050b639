"""Sixty faults, put into a copy of the sources one at a time: do tests fail?

  python tests/mutants.py [NUMBER ...]

Each mutant replaces a text that occurs once in seqrnn/, experiments/ and
configs/, in whichever file. First the tests named in `hints` run, which are
expected to fail; if they pass, README's test command decides. The exit status
is 1 if fewer than 57 mutants, or fewer than all of the numbers, are killed.

A mutant is gone if its text has changed. Whoever changed that line writes the
same fault for the new line.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = "seqrnn", "experiments", "configs"
NOT_COPIED = ".git", ".venv", "__pycache__", ".*_cache", "runs", "_build"
ENOUGH = 57
PYTEST = sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"
LIMIT = 3600  # Seconds of a test run; a mutant that never ends is killed.


class Mutant(NamedTuple):
  """A fault.

  Attributes:
    name: the behaviour of the faulty program.
    old: the text that is replaced.
    new: its replacement.
    hints: names of test functions that fail, separated by spaces.
  """

  name: str
  old: str
  new: str
  hints: str


MUTANTS = (
  # Cells.
  Mutant(
    "LSTM: input and forget gate are swapped",
    "i, f, g, o = kept",
    "f, i, g, o = kept",
    "test_step_equals_equations",
  ),
  Mutant(
    "GRU: the update gate takes the new state for the old one",
    "return (1 - kept.z) * kept.n + kept.z * carry",
    "return (1 - kept.z) * carry + kept.z * kept.n",
    "test_step_equals_equations",
  ),
  Mutant(
    "layer normalisation: the gradient lacks the term of the variance",
    "scale * (dx - _mean(dx) - y * _mean(y * dx))",
    "scale * (dx - _mean(dx))",
    "test_values_and_gradients_equal_equations",
  ),
  Mutant(
    "Odyssey: the output gate's peephole reads the old cell state",
    'c = f * c + i * g\n    o = gate("o", c)',
    'o = gate("o", c)\n    c = f * c + i * g',
    "test_step_equals_equations",
  ),
  # The scan.
  Mutant(
    "scan: the backward pass forgets the mask of padding",
    "dnew = hold(take, dcarry, zeros)",
    "dnew = dcarry",
    "test_equals_nn_scan",
  ),
  Mutant(
    "scan: the recurrent kernel's gradient is of the state after a step",
    "before_TBH = before(cell.hidden(first), h_TBH, reverse)",
    "before_TBH = h_TBH",
    "test_equals_nn_scan",
  ),
  Mutant(
    "parallel scan: the last carry of a reversed scan is its first",
    "return h_TBH[0 if reverse else -1], h_TBH",
    "return h_TBH[-1], h_TBH",
    "test_equals_nn_scan",
  ),
  # Both directions.
  Mutant(
    "gap model: the backward tower's output at t has read t",
    "return carry, jnp.concatenate([y_BTH[:, 1:], first_B1H], axis=1)",
    "return carry, y_BTH",
    "test_gap_model_sees_both_sides_and_never_the_gap",
  ),
  Mutant(
    "leak probe: the last, partial batch of outputs is not probed",
    "else N, B):\n    # The surplus",
    "else N - N % B, B):\n    # The surplus",
    "test_probe_looks_at_every_output",
  ),
  # Windows and streams.
  Mutant(
    "windows: the last, short window of a document is left out",
    "counts_D = 1 + -(-beyond_D // step)",
    "counts_D = 1 + beyond_D // step",
    "test_windows_as_cut_one_by_one",
  ),
  Mutant(
    "windows: all passes of an epoch have the same order",
    "here, key = part == one, (*self.epoch.order, number)",
    "here, key = part == one, self.epoch.order",
    "test_an_order_is_of_its_seed_epoch_and_pass_alone",
  ),
  Mutant(
    "streams: the last target of a document is the next one's first symbol",
    "np.minimum(edges[1:], bounds[documents + 1] - 1) - starts",
    "np.minimum(edges[1:], bounds[documents + 1]) - starts",
    "test_every_symbol_but_a_first_is_a_target_once",
  ),
  Mutant(
    "streams: the carry runs from one document into the next",
    "~live_B | (place_B == starts[piece_B])",
    "~live_B | (place_B == 0)",
    "test_a_row_goes_on_where_it_stopped_or_is_reset",
  ),
  # Splits and the vocabulary.
  Mutant(
    "splits: a rounding error moves one more document to validation",
    "fraction * len(corpus.ids) - _ROUNDING",
    "fraction * len(corpus.ids)",
    "test_a_rounding_error_holds_no_further_document_out",
  ),
  Mutant(
    "splits: the tail of validation is as long as that of test",
    "edges = np.stack([0 * n, n - validation - test, n - test, n])",
    "edges = np.stack([0 * n, n - validation - test, n - validation, n])",
    "test_every_tail_is_held_out",
  ),
  Mutant(
    "vocabulary: symbols as frequent as min_count are left out",
    "if count >= min_count]",
    "if count > min_count]",
    "test_the_most_frequent_come_first_and_ties_go_by_symbol",
  ),
  Mutant(
    "vocabulary: ties are ordered by the order of documents",
    "key=lambda s: (-seen[s], s))[:size]",
    "key=lambda s: -seen[s])[:size]",
    "test_it_does_not_depend_on_the_order_of_documents",
  ),
  # Detection.
  Mutant(
    "conformal: a score equal to normal ones counts as above them",
    "self.above[np.searchsorted(self.scores, scores)]",
    'self.above[np.searchsorted(self.scores, scores, "right")]',
    "test_p_values_count_what_scores_as_high",
  ),
  Mutant(
    "conformal: the new session itself is not counted",
    "count_D = 1.0\n    for group, scores_D",
    "count_D = 0.0\n    for group, scores_D",
    "test_scores_of_several_models_are_compared_with_those_of_each",
  ),
  Mutant(
    "conformal: a p-value equal to the rate is no alarm",
    "return p <= rate * (1 + 1e-12)",
    "return p < rate",
    "test_new_normal_data_are_flagged_at_the_rate",
  ),
  Mutant(
    "calibration: equal sessions count once among the events",
    "event_counts=np.repeat(scored.counts, sizes)",
    "event_counts=np.ones(sizes.sum())",
    "test_short_normal_sessions_have_no_part_in_a_calibration",
  ),
  Mutant(
    "folds: the sessions of the calibration are those of training",
    "zip(folders, trains_KD, held_out_KD, strict=True)",
    "zip(folders, trains_KD, trains_KD, strict=True)",
    "test_each_normal_session_is_scored_by_a_model_that_has_not_seen_it",
  ),
  # The CRF.
  Mutant(
    "CRF: the forward algorithm sums over the next tag",
    "before_BC = jax.nn.logsumexp(paths_BCC, axis=1)",
    "before_BC = jax.nn.logsumexp(paths_BCC, axis=2)",
    "test_sums_and_maxima_are_those_over_all_sequences",
  ),
  Mutant(
    "CRF: Viterbi's back pointers forget the mask",
    "jnp.where(mask_B1, jnp.argmax(paths_BCC, 1), own_1C)",
    "jnp.argmax(paths_BCC, 1)",
    "test_sums_and_maxima_are_those_over_all_sequences",
  ),
  # Losses.
  Mutant(
    "loss: the mean is over all positions, padding included",
    "return trained / jnp.where(weight > 0, weight, 1), totals",
    "return trained / nll_BN.size, totals",
    "test_cross_entropy_equals_its_definition",
  ),
  Mutant(
    "loss: label smoothing has the wrong sign",
    "nll_BN + smoothing * above_BN",
    "nll_BN - smoothing * above_BN",
    "test_smoothing_is_in_the_mean_alone",
  ),
  # Training, checkpoints, resuming.
  Mutant(
    "step: all steps have the same random numbers",
    "jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)",
    "jax.random.wrap_key_data(state.key)",
    "test_every_step_has_random_numbers_of_its_own",
  ),
  Mutant(
    "checkpoint: the last one counts as the best",
    "best = read_position(directory / str(latest)).best_step",
    "best = read_position(directory / str(latest)).step",
    "test_patience_stops_and_the_best_checkpoint_stays",
  ),
  Mutant(
    "checkpoint: a flipped bit that keeps the size goes unnoticed",
    "or not files.has_checksum(folder / name, sums[name])",
    "or False",
    "test_damage_to_any_file_is_noticed_and_the_file_is_named",
  ),
  Mutant(
    "resume: an epoch that was stopped begins again",
    "position=args.JsonSave(asdict(position))",
    'position=args.JsonSave({**asdict(position), "batch": 0})',
    "test_going_on_repeats_an_uninterrupted_run_to_the_bit",
  ),
  # The follower.
  Mutant(
    "open sessions: the idle time is that of the first event",
    "self._idle.after(session.symbols[-1])",
    "self._idle.after(session.symbols[0])",
    "test_silence_in_event_time_ends_a_session_and_an_event_wakes_it",
  ),
  Mutant(
    "alarms: one of no higher severity is repeated",
    "if verdict.severity > kind.severity or",
    "if verdict.severity >= kind.severity or",
    "test_a_kind_of_alarms_is_counted_and_not_repeated",
  ),
  Mutant(
    "event clock: an event that is late sets the clock back",
    "self.now = max(self.now, time)",
    "self.now = time",
    "test_one_wrong_time_ends_no_session",
  ),
  Mutant(
    "restart: an open session forgets that it has had an alarm",
    "setattr(sessions[-1], name, value)",
    'setattr(sessions[-1], name, 0 if name == "severity" else value)',
    "test_a_state_goes_on_as_if_nothing_had_stopped",
  ),
  # Decoding.
  Mutant(
    "temperature: logits are multiplied by it",
    "logits_BV / jnp.where(temperature > 0, temperature, 1)\n\n\ndef never",
    "logits_BV * jnp.where(temperature > 0, temperature, 1)\n\n\ndef never",
    "test_frequencies_follow_the_softmax_at_a_temperature",
  ),
  Mutant(
    "top-p: the symbol that reaches the mass is left out",
    "jnp.cumsum(chances_BV, axis=-1) - chances_BV",
    "jnp.cumsum(chances_BV, axis=-1)",
    "test_every_platform_draws_from_the_same_symbols",
  ),
  Mutant(
    "patterns: the last symbol of a text may leave it unfinished",
    "allowed_BV = need_BV < left.astype(need_BV.dtype)",
    "allowed_BV = need_BV <= left.astype(need_BV.dtype)",
    "test_every_sample_is_a_match",
  ),
  # Logs.
  Mutant(
    "templates: of several that fit, the one with the most blanks is taken",
    "sorted(some, key=len)",
    "sorted(some, key=len, reverse=True)",
    "test_a_line_is_of_the_closest_template_that_it_fits",
  ),
  Mutant(
    "secrets: of two groups in a match only the first is masked",
    "spans += groups or [match.span()]",
    "spans += groups[:1] or [match.span()]",
    "test_a_pattern_adds_to_the_secrets_and_groups_are_what_is_masked",
  ),
  Mutant(
    "secrets: a text is cut before it is masked",
    "text = Redaction(pattern).text(text)\n",
    "text = Redaction(pattern).text(text[:most])\n",
    "test_a_text_is_masked_before_it_is_cut",
  ),
  # Drawn at random: random.Random(2026) chose one of the files of
  # seqrnn/reporting, exporting, data/logs, config/resolve.py, logs/drift.py and
  # logs/follow/state.py, then one of its places outside messages and
  # docstrings: a comparison turned round, + for - or - for +, a constant plus
  # one, `and` for `or` or the reverse, no `not`, an argument dropped, min for
  # max or the reverse. These are the first twenty that change the behaviour;
  # the ninth did not: zip without strict=True, of equal lengths.
  Mutant(
    "sessions of N lines: each line counts twice",
    "context.position += 1",
    "context.position += 2",
    "test_every_way_of_cutting_a_log_has_its_rule",
  ),
  Mutant(
    "state: a row is read without its part",
    "yield StateRow(key, part, json.loads(text))",
    "yield StateRow(key, json.loads(text))",
    "test_alarms_that_were_truncated_are_completed_renamed_ones_stay",
  ),
  Mutant(
    "state: the end of the file of alarms is not sought",
    "file.seek(max(size - _END, 0))",
    "file.seek()",
    "test_kills_and_rotations_neither_lose_nor_repeat_an_alarm",
  ),
  Mutant(
    "log lines: the first number is 2",
    "enumerate(texts, self.number + 1)",
    "enumerate(texts, self.number + 2)",
    "test_every_way_of_cutting_a_log_has_its_rule",
  ),
  Mutant(
    "diagram: the title is above the picture",
    "axes.text(0.5, len(diagram) - 0.4, title",
    "axes.text(0.5, len(diagram) + 0.4, title",
    "test_a_picture_shows_all_parts",
  ),
  Mutant(
    "report: an incident has no severity",
    'row["severity"], alarm, row["event"], before',
    'alarm, row["event"], before',
    "test_a_page_for_every_task_and_every_branch_of_the_templates",
  ),
  Mutant(
    "report: the section on training has no data",
    '"training", {"charts": drawn, "runs": len(runs)})',
    '"training")',
    "test_tags_of_unknown_words_are_shown_with_the_words",
  ),
  Mutant(
    "report: the summary of a detection is not read",
    "_summary(stored.read_object(report))",
    "_summary(stored.read_object())",
    "test_a_page_for_every_task_and_every_branch_of_the_templates",
  ),
  Mutant(
    "report: only symbols without a prediction are coloured",
    "if t in known:",
    "if t not in known:",
    "test_tags_of_unknown_words_are_shown_with_the_words",
  ),
  Mutant(
    "secrets: the pattern of single quotes is not derived",
    """_QUOTED.replace('"', "'")""",
    """_QUOTED.replace("'")""",
    "test_a_pattern_adds_to_the_secrets_and_groups_are_what_is_masked",
  ),
  Mutant(
    "diagram: an input part has no number of parameters",
    "each(one))] for one in sizes if one.part.is_input]",
    "each())] for one in sizes if one.part.is_input]",
    "test_a_picture_shows_all_parts",
  ),
  Mutant(
    "log entries: the session pattern is for all cuts but its own",
    'if form.cut == "pattern":\n      sessions',
    'if form.cut != "pattern":\n      sessions',
    "test_sessions_amid_which_a_log_begins_or_ends_are_cut",
  ),
  Mutant(
    "log entries: the second group of a session pattern is the name",
    "spans = [match.span(1) for match in self._names.finditer(text)]\n"
    "    sessions",
    "spans = [match.span(2) for match in self._names.finditer(text)]\n"
    "    sessions",
    "test_sessions_amid_which_a_log_begins_or_ends_are_cut",
  ),
  Mutant(
    "short trainings: the average reaches half as far back",
    "round(1 - 1 / reach, 4)",
    "round(1 - 2 / reach, 4)",
    "test_a_short_training_is_evaluated_each_epoch",
  ),
  Mutant(
    "report: the section on gaps has no title",
    'Section("Predictions in gaps", "gaps", data)',
    'Section("gaps", data)',
    "test_a_page_for_every_task_and_every_branch_of_the_templates",
  ),
  Mutant(
    "report: a text is encoded without regard to its boundaries",
    "encoded(documents, subject.symbols, boundaries)",
    "encoded(documents, subject.symbols)",
    "test_a_page_for_every_task_and_every_branch_of_the_templates",
  ),
  Mutant(
    "rotation: two lists of the files of a log are never equal",
    "[part[:2] for part in before]",
    "[part[:3] for part in before]",
    "test_a_file_that_grows_is_listed_at_once",
  ),
  Mutant(
    "detection: anomalous sessions have no label",
    "set_label(anomalous, True)",
    "set_label(anomalous)",
    "test_equal_sessions_are_computed_once",
  ),
  Mutant(
    "slow sessions: evidence is summed over sessions, not over factors",
    "logsumexp(sums, axis=0)",
    "logsumexp(sums, axis=1)",
    "test_times_that_are_all_long_are_evidence",
  ),
  Mutant(
    "playground: an array is not reshaped to rows",
    "np.reshape(rows, (len(rows), -1))",
    "np.reshape(rows)",
    "test_it_is_valid",
  ),
)


def place_of(old: str) -> Path | None:
  """The one file of the sources with a text; None: there is none."""
  files = (path for name in SOURCES for path in (ROOT / name).rglob("*.py"))
  counts = {path: path.read_text("utf-8").count(old) for path in files}
  places = [path for path, count in counts.items() if count]
  if sum(counts.values()) > 1:
    raise SystemExit(
      f"{old!r}: is more than once in {', '.join(map(str, places))}"
    )
  return places[0] if places else None


def tests_of(hints: str) -> list[str]:
  """The tests of these names, as pytest takes them."""
  return [
    f"{path.relative_to(ROOT).as_posix()}::{name}"
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    for name in hints.split()
    if re.search(rf"^def {name}\(", path.read_text("utf-8"), re.MULTILINE)
  ]


def failure(copy: Path, *arguments: str) -> str | None:
  """The first test that fails in the copy; None: all pass."""
  # Programs of XLA are compiled once for all mutants; caches of data, which
  # depend on the sources, are not shared.
  cache = Path(tempfile.mkdtemp(dir=copy.parent))
  (cache / "jax").symlink_to(copy.parent / "programs")
  environment = {
    **os.environ,
    "PYTHONPATH": str(copy),  # Before an editable installation.
    "PYTHONDONTWRITEBYTECODE": "1",
    "SEQRNN_TESTS_CACHE": str(cache),
  }
  command = [*PYTEST, *arguments]
  try:
    done = subprocess.run(
      command, cwd=copy, env=environment, capture_output=True, timeout=LIMIT
    )
  except subprocess.TimeoutExpired:
    return f"no end after {LIMIT} seconds"
  if done.returncode == 0:
    return None
  lines = done.stdout.decode("utf-8", "replace").splitlines()
  failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
  return (failed or lines[-1:] or ["no test begins"])[0].split(" - ")[0]


def tried(mutant: Mutant, copy: Path) -> str:
  """`killed` by a test, `survived` or `gone`."""
  source = place_of(mutant.old)
  if source is None:
    return "gone"
  target = copy / source.relative_to(ROOT)
  text = source.read_text("utf-8")
  target.write_text(text.replace(mutant.old, mutant.new), "utf-8")
  try:
    tests = tests_of(mutant.hints)
    killed = failure(copy, *tests) if tests else None
    killed = killed or failure(copy, "-n", "2")
  finally:
    target.write_text(text, "utf-8")
  return f"killed    {killed}" if killed else "survived"


def main():
  """Tries the mutants, and prints a line for each."""
  title = (__doc__ or "").split("\n")[0]
  parser = argparse.ArgumentParser(description=title)
  parser.add_argument("numbers", nargs="*", type=int, metavar="N")
  numbers = parser.parse_args().numbers or range(1, len(MUTANTS) + 1)
  chosen = [(n, MUTANTS[n - 1]) for n in numbers]
  with tempfile.TemporaryDirectory() as folder:
    copy = Path(folder) / "copy"
    (Path(folder) / "programs").mkdir()
    copytree(ROOT, copy, ignore=ignore_patterns(*NOT_COPIED), symlinks=True)
    tests = tests_of(" ".join({mutant.hints: None for _, mutant in chosen}))
    if fault := failure(copy, *dict.fromkeys(tests)):
      raise SystemExit(f"without any mutant: {fault}")
    results = []
    for n, mutant in chosen:
      results.append(tried(mutant, copy))
      print(f"{n:2}  {mutant.name}\n    {results[-1]}", flush=True)
  count = {
    word: sum(result.startswith(word) for result in results)
    for word in ("killed", "survived", "gone")
  }
  print(", ".join(f"{number} {word}" for word, number in count.items()))
  sys.exit(count["killed"] < min(ENOUGH, len(chosen)))


if __name__ == "__main__":
  main()
