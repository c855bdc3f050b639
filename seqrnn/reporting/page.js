// Shows the predictions for a symbol of a text. The mouse, a touch or the arrow
// keys choose the symbol.
for (const reading of document.querySelectorAll(".reading")) {
  const {names, symbols} = JSON.parse(
    reading.querySelector("script").textContent);
  const text = reading.querySelector(".text");
  const predicted = reading.querySelector(".predicted");
  const spans = [...text.children];
  let now = -1;
  const add = (parent, name, content, kind) => {
    const made = parent.appendChild(document.createElement(name));
    if (content !== undefined) made.textContent = content;
    if (kind) made.className = kind;
    return made;
  };
  const choose = (index) => {
    if (index < 0 || index >= spans.length || index === now) return;
    if (now >= 0) spans[now].classList.remove("now");
    now = index;
    spans[now].classList.add("now");
    const [id, bits, likely] = symbols[now];
    predicted.replaceChildren();
    const head = add(predicted, "p");
    add(head, "code", names[id]);
    if (bits === null) {
      head.append(" was not predicted");
      return;
    }
    const chance = 100 * 2 ** -bits;
    head.append(` had probability ${chance < 0.1 ? chance.toPrecision(1)
      : chance.toFixed(1)} %: ${bits.toFixed(2)} bits`);
    for (const [other, share] of likely) {
      const bar = add(predicted, "div", undefined, "bar");
      const name = names[other];
      add(bar, "b", name, name.length > 12 ? "long" : "").title = name;
      add(add(bar, "div", undefined, "track"), "i").style.width =
        `${100 * share}%`;
      add(bar, "span", `${(100 * share).toFixed(1)} %`);
    }
  };
  choose(symbols.findIndex(([, bits]) => bits !== null));
  const at = (event) => choose(spans.indexOf(event.target.closest("span")));
  text.addEventListener("pointerover", at);
  text.addEventListener("click", at);
  text.addEventListener("keydown", (event) => {
    const way = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!way) return;
    event.preventDefault();
    choose(Math.max(0, now + way));
    spans[now].scrollIntoView({block: "nearest"});
  });
}

// A table that is wider than the page says so.
const mark = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 9);
  }
};
addEventListener("resize", mark);
mark();
