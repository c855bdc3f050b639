"use strict";
// Patterns: regular expressions that a text must match as a whole. The
// derivative of an expression by a letter matches what may follow the letter
// (Brzozowski 1964): the derivative of `def|do` by `d` is `ef|o`. Equal
// expressions are one object, so that derivatives are states of an automaton.

const LAST = 0x10ffff; // The last code point.
const STATES = 2000; // Of an automaton, at most.
const SIZE = 1e6; // Of all expressions together: the number of their parts.

class Refusal extends Error {}

// Ranges of code points or of bytes: [[first, last], ...], in order, apart.

function merged(ranges) {
  const apart = [];
  for (const [first, last] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const before = apart.at(-1);
    if (before && first <= before[1] + 1) {
      before[1] = Math.max(before[1], last);
    } else apart.push([first, last]);
  }
  return apart;
}

function complement(ranges) {
  const edges = merged(ranges).flatMap(([a, b]) => [a - 1, b + 1]);
  const bounds = [0, ...edges, LAST];
  const between = bounds.map((bound, n) => [bound, bounds[n + 1]]);
  return between.filter(([first, last], n) => n % 2 === 0 && first <= last);
}

function within(ranges, low, high) {
  const cut = ranges.map((r) => [Math.max(r[0], low), Math.min(r[1], high)]);
  return cut.filter(([first, last]) => first <= last);
}

const shifted = (ranges, by) => ranges.map(([a, b]) => [a - by, b - by]);
const has = (ranges, x) => ranges.some((r) => r[0] <= x && x <= r[1]);

// \d, \w and \s match what they match in Python.
const CLASSES = {
  d: /\p{Nd}/u,
  w: /[\p{L}\p{N}_]/u,
  s: /[\p{Z}\t-\r\x1c-\x1f\x85]/u,
};
const classRanges = {};

function rangesOf(name) {
  if (!classRanges[name]) {
    const found = classRanges[name] = [];
    for (let x = 0; x <= LAST; x++) {
      if (!CLASSES[name].test(String.fromCodePoint(x))) continue;
      if (found.at(-1)?.[1] === x - 1) found.at(-1)[1] = x;
      else found.push([x, x]);
    }
  }
  return classRanges[name];
}

// Expressions. An expression is nullable if it matches the empty text.

const NONE = { id: 0, nullable: false }; // Matches no text.
const EMPTY = { id: 1, nullable: true }; // Matches the empty text only.
let expressions = new Map(); // All others, by their content.
let encodings = new Map(); // Those of `utf8`, by its arguments.
let size = 0;

function expression(kind, nullable, ...parts) {
  const key = [kind, ...parts.map((part) => part.id ?? part)].join();
  if (!expressions.has(key)) {
    size += parts.length;
    if (size > SIZE) throw new Refusal(`needs more than ${STATES} states`);
    const id = expressions.size + 2;
    expressions.set(key, { id, kind, nullable, parts, after: new Map() });
  }
  return expressions.get(key);
}

// One letter.
function set(ranges) {
  return ranges.length ? expression("set", false, merged(ranges)) : NONE;
}

function sequence(a, b) {
  if (a === NONE || b === NONE) return NONE;
  if (a === EMPTY) return b;
  if (b === EMPTY) return a;
  if (a.kind === "sequence") {
    return sequence(a.parts[0], sequence(a.parts[1], b));
  }
  return expression("sequence", a.nullable && b.nullable, a, b);
}

function either(choices) {
  const flat = choices.flatMap((x) => x.kind === "either" ? x.parts : [x]);
  const distinct = [...new Set(flat)].filter((x) => x !== NONE);
  if (distinct.length < 2) return distinct[0] ?? NONE;
  distinct.sort((a, b) => a.id - b.id);
  return expression("either", distinct.some((x) => x.nullable), ...distinct);
}

function repeat(x, least, most) {
  if (most === 0 || x === EMPTY) return EMPTY;
  if (least === 1 && most === 1) return x;
  return expression("repeat", least === 0 || x.nullable, x, least, most);
}

const DERIVATIVES = {
  set: (letter, ranges) => has(ranges, letter) ? EMPTY : NONE,

  sequence(letter, a, b) {
    const inside = sequence(derivative(a, letter), b);
    return a.nullable ? either([inside, derivative(b, letter)]) : inside;
  },

  either: (letter, ...choices) =>
    either(choices.map((x) => derivative(x, letter))),

  repeat: (letter, x, least, most) => sequence(
    derivative(x, letter), repeat(x, Math.max(least - 1, 0), most - 1)),
};

function derivative(of, letter) {
  if (of === NONE || of === EMPTY) return NONE;
  if (!of.after.has(letter)) {
    of.after.set(letter, DERIVATIVES[of.kind](letter, ...of.parts));
  }
  return of.after.get(letter);
}

// The UTF-8 of code points: a byte, `first` or one of 63 after it, and then
// `more` bytes. The ranges begin at the first code point of the byte `first`.
function utf8(ranges, first, more) {
  const key = [first, more, ...ranges].join();
  if (!encodings.has(key)) {
    const bytes = new Map(), width = 64 ** more; // Bytes by what follows them.
    for (let n = 0; n < 64; n++) {
      const begun = within(ranges, n * width, (n + 1) * width - 1);
      if (begun.length === 0) continue;
      const inner = shifted(begun, n * width);
      const rest = more ? utf8(inner, 0x80, more - 1) : EMPTY;
      bytes.set(rest, [...(bytes.get(rest) ?? []), [first + n, first + n]]);
    }
    const all = Array.from(bytes, ([rest, x]) => sequence(set(x), rest));
    encodings.set(key, either(all));
  }
  return encodings.get(key);
}

// One character, whose letters are bytes or itself.
function character(ranges, bytewise) {
  if (!bytewise) return set(ranges);
  const three = [[0x800, 0xd7ff], [0xe000, 0xffff]]; // Without surrogates.
  return either([
    set(within(ranges, 0, 0x7f)),
    utf8(within(ranges, 0x80, 0x7ff), 0xc0, 1),
    utf8(three.flatMap((bounds) => within(ranges, ...bounds)), 0xe0, 2),
    utf8(within(ranges, 0x10000, LAST), 0xf0, 3),
  ]);
}

// Reads a regular expression. What it does not know is refused.
function parse(source, bytewise) {
  const letters = [...source];
  let n = 0;

  const take = (letter) => letters[n] === letter && n++ >= 0;
  const one = (letter) => [[letter.codePointAt(0), letter.codePointAt(0)]];

  function refuse(reason) {
    throw new Refusal(`character ${Math.min(n, letters.length)}: ${reason}`);
  }

  function alternatives() {
    const choices = [];
    do {
      const parts = [];
      while (n < letters.length && !"|)".includes(letters[n])) {
        parts.push(repeated());
      }
      choices.push(parts.reduceRight((rest, x) => sequence(x, rest), EMPTY));
    } while (take("|"));
    return either(choices);
  }

  function repeated() {
    const x = atom(), counts = quantifier();
    if (!counts) return x;
    if ("*+?{".includes(letters[n] ?? " ")) {
      n++;
      refuse("lazy, possessive and double quantifiers are not supported");
    }
    return repeat(x, ...counts);
  }

  // The smallest and the largest number of repetitions.
  function quantifier() {
    if (take("*")) return [0, Infinity];
    if (take("+")) return [1, Infinity];
    if (take("?")) return [0, 1];
    if (!take("{")) return null;
    const rest = letters.slice(n).join("");
    const [all, least, comma, most] = rest.match(/^(\d+)(,?)(\d*)\}/) ?? [];
    if (all === undefined || (most && !comma)) {
      refuse("{ begins a count, as {2}, {2,} or {2,5}; the character is \\{");
    }
    n += all.length;
    const counts = [Number(least), Number(most || (comma ? Infinity : least))];
    if (counts[0] > counts[1]) refuse("the counts are in the wrong order");
    return counts;
  }

  function atom() {
    const letter = letters[n++];
    if (letter === "(") return group();
    if (letter === "^" && n === 1) return EMPTY;
    if (letter === "$" && n === letters.length) return EMPTY;
    if ("^$".includes(letter)) {
      refuse(`${letter} is no anchor here; the character is \\${letter}`);
    }
    if ("*+?{".includes(letter)) refuse(`${letter} has nothing to repeat`);
    if (letter === ".") return character(complement(one("\n")), bytewise);
    if (letter === "[") return character(bracket(), bytewise);
    return character(letter === "\\" ? escape() : one(letter), bytewise);
  }

  function group() {
    if (take("?") && !take(":")) {
      refuse("of the groups that begin with (?, only (?: is supported");
    }
    const inside = alternatives();
    if (!take(")")) refuse("a ) is missing");
    return inside;
  }

  // The ranges of an escaped character or class.
  function escape() {
    const letter = letters[n++] ?? refuse("\\ escapes nothing");
    const name = letter.toLowerCase();
    if (name in CLASSES) {
      return letter === name ? rangesOf(name) : complement(rangesOf(name));
    }
    const control = "tnvfr".indexOf(letter); // U+0009 to U+000D.
    if (control >= 0) return [[9 + control, 9 + control]];
    const digits = { x: 2, u: 4 }[letter];
    const hex = letters.slice(n, n + digits).join("");
    if (digits && hex.length === digits && /^[0-9a-f]+$/i.test(hex)) {
      n += digits;
      return [[parseInt(hex, 16), parseInt(hex, 16)]];
    }
    if (/[0-9A-Za-z]/.test(letter)) refuse(`\\${letter} is not supported`);
    return one(letter);
  }

  function bracket() {
    const negated = take("^"), found = [];
    do { // A ] that comes first is a character.
      const first = member();
      if (letters[n] === "-" && (letters[n + 1] ?? "]") !== "]") {
        n++;
        const last = member();
        const single = [...first, ...last].every(([a, b]) => a === b);
        if (!single || first.length > 1 || last.length > 1) {
          refuse("the bounds of a range must be characters");
        }
        if (first[0][0] > last[0][0]) refuse("the range is in the wrong order");
        found.push([first[0][0], last[0][0]]);
      } else found.push(...first);
    } while (!take("]"));
    return negated ? complement(found) : merged(found);
  }

  function member() {
    const letter = letters[n++] ?? refuse("a ] is missing");
    return letter === "\\" ? escape() : one(letter);
  }

  const whole = alternatives();
  if (take(")")) refuse("a ( is missing");
  return whole;
}

// The automaton of an expression over symbols, which are joined as the unit
// needs (`joined` in seqrnn/data/vocabulary.py). Its places are what may follow
// a text, and whether a space comes before the next word.
function automaton(source, symbols, unit) {
  expressions = new Map();
  encodings = new Map();
  size = 0;
  const bytewise = unit === "byte", joined = bytewise || unit === "char";
  const whole = parse(source, bytewise);
  const sets = [...expressions.values()].filter((x) => x.kind === "set");

  // Letters that no set tells apart are replaced with the first one of them.
  const alike = new Map(), letter = new Map();
  function replaced(x) {
    if (!letter.has(x)) {
      const key = sets.map(({ parts: [ranges] }) => has(ranges, x)).join();
      if (!alike.has(key)) alike.set(key, x);
      letter.set(x, alike.get(key));
    }
    return letter.get(x);
  }

  // Symbols that are then equal form a group.
  const space = joined ? [] : [replaced(32)];
  const groups = new Map();
  const groupOf = symbols.map((symbol) => {
    const letters = [...symbol].map((x) => replaced(x.codePointAt(0)));
    const line = unit === "word" && symbol === "\n";
    const key = [line, ...letters].join();
    if (!groups.has(key)) groups.set(key, { letters, line, n: groups.size });
    return groups.get(key);
  });

  // before: the places that lead to it; distance: symbols to the nearest end.
  const places = new Map();
  function place(expression, spaced) {
    const key = 2 * expression.id + spaced;
    if (!places.has(key)) {
      if (places.size === STATES) {
        throw new Refusal(`needs more than ${STATES} states`);
      }
      places.set(key, { expression, spaced, before: [], distance: Infinity });
    }
    return places.get(key);
  }

  // The place after one more symbol; null: no text with it matches.
  function after({ expression, spaced }, { letters, line }) {
    const all = spaced && !line ? [...space, ...letters] : letters;
    const rest = all.reduce(derivative, expression);
    return rest === NONE ? null : place(rest, !joined && !line);
  }

  const start = place(whole, false);
  for (const now of places.values()) { // Grows on the way.
    const next = Array.from(groups.values(), (group) => after(now, group));
    for (const then of new Set(next)) then?.before.push(now);
  }
  const near = [...places.values()].filter((x) => x.expression.nullable);
  for (const now of near) now.distance = 0;
  for (const now of near) { // Likewise: the nearest come first.
    for (const then of now.before) {
      if (then.distance < Infinity) continue;
      then.distance = now.distance + 1;
      near.push(then);
    }
  }
  if (start.distance === Infinity) {
    throw new Refusal("no text of the model's symbols matches it");
  }

  return {
    start,
    states: places.size,

    // The place after the symbol n; null: none.
    after: (now, n) => now && n in groupOf ? after(now, groupOf[n]) : null,

    // Of each symbol, whether a match can end within `left` symbols after it.
    open(now, left) {
      const open = Array.from(groups.values(), (group) => {
        return (after(now, group)?.distance ?? Infinity) <= left;
      });
      return groupOf.map((group) => open[group.n]);
    },
  };
}
