"""The page that continues a text: in a browser, against its model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data.logs.sessions import event_vocabulary
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.experiment import shapes
from seqrnn.reporting import playground
from seqrnn.sampling import decoding
from tests.conftest import Page, message_of, random_params

SPELLED = "A,a B's... 3.1,x -- \u03a3\nA"
SYMBOLS = Vocabulary("char", (*"abcde \n", "\u00fc", "\U0001f600"))
# These use all that the page knows of cells.
RUNS = ("lstm", "gru", "rnn_relu", "odyssey", "odyssey_nfg", "odyssey_niaf")
RUNS += ("odyssey_cifg", "odyssey_fgr")
MODELS = {
  **{cell: {"model.cell": cell} for cell in RUNS},
  "tied": {
    "model.embedding_size": 12,
    "model.tied": True,
    "data.boundaries": False,
  },
}


def write_playground(folder, fields, symbols=SYMBOLS):
  """A model with large random weights that never ends a text, and its page."""
  config = base.get_config()
  config.model.hidden_size = 12
  config.update_from_flattened_dict(fields)
  experiment = experiments.build(config, {"symbols": symbols})
  params = random_params(experiment, 1, 0.6)
  head = params.get("head", {})
  head.get("bias", params.get("head_bias"))[END] = -100
  path = folder / "playground.html"
  page = playground.build(experiment, params, config, folder.name)
  path.write_text(page, "utf-8")
  return experiment, params, path


def wait(browser, until):
  """Until an expression of the page is true."""
  browser.execute_async_script(
    f"""
    const done = arguments[0];
    (function look() {{ ({until}) ? done() : setTimeout(look, 5); }})();
    """
  )


@pytest.mark.parametrize("name", MODELS)
def test_its_probabilities_are_the_checkpoints(tmp_path, browser, name):
  experiment, params, path = write_playground(tmp_path, MODELS[name])
  rng = np.random.default_rng(0)
  text = "".join(rng.choice([*SYMBOLS.symbols, "?"], 40))
  ids = SYMBOLS.encode(text)
  begin = [BEGIN] if MODELS[name].get("data.boundaries", True) else []
  step = lambda carry, id: experiment.decoder.step(params, carry, id[None])
  _, logits_T1V = jax.lax.scan(
    step, experiment.decoder.start(1), jnp.array([*begin, *ids])
  )
  expected_TV = jax.nn.softmax(logits_T1V[:, 0])
  assert expected_TV.std(0).max() > 0.01  # The text matters.

  browser.get(path.as_uri())
  found = browser.execute_script(
    """
    const read = tokens(arguments[0]).flatMap((token) => token.ids);
    let carry = start;
    const chances = model.boundaries ? [[...softmax(logits(carry))]] : [];
    for (const id of read) {
      carry = step(carry, id);
      chances.push([...softmax(logits(carry))]);
    }
    return { read, chances };
    """,
    text,
  )
  assert found["read"] == ids.tolist()
  np.testing.assert_allclose(found["chances"], expected_TV, atol=1e-3)


def test_its_chances_are_those_of_the_sampler(tmp_path, browser):
  *_, path = write_playground(tmp_path, {"sample.top_p": 0.97})
  browser.get(path.as_uri())
  assert browser.find_element("id", "percent").text == "0.97"
  cases = [(t, share) for t in (0, 0.5, 1.5) for share in (0.2, 0.6, 0.95, 1)]
  logits_V, p_CV = browser.execute_script(
    """
    const carry = tokens("e").flatMap((token) => token.ids).reduce(step, start);
    return [[...logits(carry)], arguments[0].map(([temperature, share]) =>
      [...chances(carry, { temperature, share })])];
    """,
    cases,
  )
  V = len(SYMBOLS)
  logits_V = np.array(logits_V, np.float32)
  logits_V[[PAD, BEGIN, UNKNOWN]] = -np.inf
  for (temperature, share), p_V in zip(cases, p_CV, strict=True):
    # A symbol is drawn by any noise if it is likely.
    likely_V = decoding.choose_symbol(
      jnp.eye(V) * 1e6,
      jnp.tile(logits_V, (V, 1)),
      jnp.float32(temperature or 1),
      decoding.Limits(V, share),
    ) == jnp.arange(V)
    if not temperature:
      likely_V = logits_V == logits_V.max()
    scaled_V = np.where(likely_V, logits_V, -np.inf) / (temperature or 1)
    np.testing.assert_allclose(p_V, jax.nn.softmax(scaled_V), atol=1e-5)
  assert len({int(np.sum(np.array(p_V) > 0)) for p_V in p_CV}) > 3


def test_it_writes_on_from_what_is_typed(tmp_path, browser):
  from selenium.webdriver import Keys

  experiment, params, path = write_playground(tmp_path, {"sample.prime": "abc"})
  browser.get(path.as_uri())
  area = browser.find_element("id", "text")
  area.send_keys("\nde")
  wait(browser, "bits.length === 6")
  segment = np.concatenate([[BEGIN], SYMBOLS.encode("abc\nde")])[None]
  batch = {
    "inputs": segment[:, :-1],
    "targets": segment[:, 1:],
    "weights": np.ones((1, 6), np.float32),
    "reset": np.ones(1, bool),
  }
  _, nats_BN = experiment.score(params, (), batch)
  bits = np.array(browser.execute_script("return bits"))
  np.testing.assert_allclose(bits * np.log(2), nats_BN[0], atol=0.02)

  area.send_keys(Keys.CONTROL, Keys.ENTER)
  wait(browser, f"left === 0 && bits.length === {6 + 1000}")
  area.send_keys(Keys.CONTROL, Keys.HOME)  # A change stands before the rest.
  area.send_keys(Keys.NULL, "e")
  bar = browser.find_element("css selector", "#bars button")
  symbol = SYMBOLS.symbols[int(bar.get_property("value")) - 4]
  bar.send_keys(Keys.SPACE)
  wait(browser, f"bits.length === {2 + 6 + 1000}")
  text = area.get_property("value")
  assert text.startswith(f"e{symbol}abc\nde")
  shown = browser.find_element("id", "colours").get_property("textContent")
  assert shown == text + "\u200b"
  bits = browser.execute_script("return bits")

  _, _, path = write_playground(tmp_path, {"sample.prime": text})
  browser.get(path.as_uri())
  wait(browser, f"bits.length === {len(bits)}")
  assert browser.execute_script("return bits") == bits

  assert browser.get_log("browser") == []
  requests = "return performance.getEntriesByType('resource').length"
  assert browser.execute_script(requests) == 0


@pytest.mark.parametrize(
  "unit, symbols, text",
  [
    ("spelled", ("a", ",", "b's", "...", "3.1", "\u03c3"), SPELLED),
    ("word", ("a", "\n", "</script>", "\u2028MODEL"), "a a \n </script>  b\na"),
    ("session", ("a", "E1", "</script>"), "a E1 </script>"),
    ("log", ("on", "add <value>"), "add <value>\non\nadd <value>"),
    ("byte", tuple(map(chr, range(256))), "a\n\u00fc\U0001f600"),
  ],
)
def test_its_symbols_are_those_of_the_vocabulary(
  tmp_path, browser, unit, symbols, text
):
  data = base.get_config().data
  if unit == "spelled":
    unit, data.lowercase, data.punctuation = "word", True, True
  data.unit = unit
  symbols = event_vocabulary(Vocabulary(unit, symbols), "")
  fields = {f"data.{name}": value for name, value in data.items()}
  write_playground(tmp_path, {"sample.prime": text, **fields}, symbols)
  browser.get((tmp_path / "playground.html").as_uri())
  read = "return written.flatMap((token) => token.ids)"
  [document] = from_text(text, unit, data)
  ids = symbols.encode(document.symbols).tolist()
  assert browser.execute_script(read) == ids
  browser.find_element("id", "write").click()
  wait(browser, "left === 0 && bits.length === written.length")
  ids = browser.execute_script(read)
  text = browser.find_element("id", "text").get_property("value")
  [document] = from_text(text.replace("\u240d", "\r"), unit, data)
  assert symbols.encode(document.symbols).tolist() == ids
  assert browser.get_log("browser") == []


def test_it_is_valid(tmp_path):
  *_, path = write_playground(tmp_path, {})
  page = Page(path.read_text("utf-8"))
  assert page.faults == []
  assert len(page.ids) == len(set(page.ids)) > 9


def test_what_it_cannot_run_is_refused_in_one_line():
  for fields, message in (
    ({"data.mapping": "many_to_one"}, "'many_to_one': must be a language"),
    ({"model.cell": "slstm"}, "model.cell='slstm': must be lstm, gru, "),
  ):
    config = base.get_config()
    config.update_from_flattened_dict(fields)
    experiment = experiments.build(config, {"symbols": SYMBOLS})
    given = experiment, shapes(experiment), config, "page"
    assert message in message_of(playground.build, *given)
