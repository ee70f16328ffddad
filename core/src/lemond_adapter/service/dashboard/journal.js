// The journal, newest first, as it happens; filters, and a way to hold it still while reading.

import { byId, el, nameOf, printable, setText } from "./dom.js";
import { idOf } from "./lanes.js";
import { KINDS, clock, kindOf, sentence, toneOf, typeWords } from "./words.js";

const SHOWN = 300;

export class Journal {
  #kinds = new Set(Object.keys(KINDS));
  #slot = "";
  #text = "";
  #held = null; // the time of the newest that is shown, while held

  constructor(store) {
    this.store = store;
    this.root = byId("log");
    const search = el("input", {
      type: "search", id: "journal-text", placeholder: "Find", "aria-label": "Find in the journal",
      oninput: (event) => { this.#text = event.target.value.toLowerCase(); this.render(); },
    });
    this.select = el("select", {
      id: "journal-slot", "aria-label": "Slot",
      onchange: (event) => { this.#slot = event.target.value; this.render(); },
    }, el("option", { value: "", text: "All slots" }));
    const kinds = Object.keys(KINDS).map((kind) => el("button", {
      type: "button", class: "chip", "aria-pressed": "true", text: kind, "data-kind": kind,
      onclick: (event) => {
        const on = !this.#kinds.has(kind);
        if (on) this.#kinds.add(kind); else this.#kinds.delete(kind);
        event.target.setAttribute("aria-pressed", String(on));
        this.render();
      },
    }));
    byId("filters").append(search, this.select, el("div", { class: "chips", role: "group", "aria-label": "Kinds of events" }, ...kinds));
    byId("hold").addEventListener("click", (event) => {
      this.#held = this.#held === null ? merged(this.store).at(-1)?.at ?? "" : null;
      event.target.setAttribute("aria-pressed", String(this.#held !== null));
      this.render();
    });
  }

  render() {
    this.#slots();
    const journal = merged(this.store);
    const shown = this.#held === null ? journal : journal.filter(({ at }) => at <= this.#held);
    const rows = [];
    for (let index = shown.length - 1; index >= 0 && rows.length < SHOWN; index -= 1) {
      if (this.#wanted(shown[index])) rows.push(shown[index]);
    }
    const waiting = journal.length - shown.length;
    setText(byId("hold"), this.#held === null ? "Hold" : waiting ? `Go on (${waiting} new)` : "Go on");
    setText(byId("journal-count"), journal.length ? `${rows.length}${rows.length === SHOWN ? "+" : ""} of ${journal.length}` : "");
    this.#draw(rows);
  }

  #wanted(event) {
    if (!this.#kinds.has(kindOf(event.type))) return false;
    if (this.#slot && event.slot !== this.#slot && event.model !== this.#slot) return false;
    if (!this.#text) return true;
    const text = `${event.type} ${typeWords(event.type)} ${event.slot} ${event.model} ${this.#words(event)} ${event.source}`;
    return text.toLowerCase().includes(this.#text);
  }

  #words(event) {
    return sentence(event, this.store.causeOf(event));
  }

  #slots() {
    const names = [...new Set(this.store.catalogue.map(({ name }) => name))];
    const key = names.join("\n");
    if (this.select.dataset.names === key) return;
    this.select.dataset.names = key;
    this.select.replaceChildren(el("option", { value: "", text: "All slots" }),
      ...names.map((name) => el("option", { value: name, text: printable(name) })));
    this.select.value = names.includes(this.#slot) ? this.#slot : (this.#slot = "");
  }

  /** Rows that are there stay: what is being read or selected does not jump about. */
  #draw(events) {
    const have = new Map([...this.root.children].map((node) => [node.dataset.id, node]));
    const wanted = events.map((event) => `${idOf(event)} ${this.store.causeOf(event) ?? ""}`);
    const keep = new Set(wanted);
    for (const [id, node] of have) if (!keep.has(id)) node.remove();
    let at = this.root.firstChild;
    events.forEach((event, index) => {
      const node = have.get(wanted[index]);
      if (node && node === at) at = at.nextSibling;
      else this.root.insertBefore(node || row(event, wanted[index], this.#words(event)), at);
    });
    if (!events.length) {
      const text = this.store.journal.length ? "No event fits these filters." : "No events yet.";
      this.root.replaceChildren(el("li", { class: "log-empty muted", text, "data-id": `none ${text}` }));
    }
  }
}

/** Events, and the decisions among them, oldest first. */
function merged({ journal, notes }) {
  if (!notes.length) return journal;
  const decisions = notes.map((note) => ({ ...note, type: "note", seq: note.text, source: note.kind }));
  return [...journal, ...decisions].sort((one, other) => (one.at < other.at ? -1 : Number(one.at > other.at)));
}

function row(event, id, words) {
  const at = Date.parse(event.at) / 1000;
  const name = event.slot ?? event.model;
  return el("li", { "data-id": id, "data-type": event.type },
    el("time", { datetime: event.at, title: event.at, text: clock(at, true) }),
    el("span", { class: `type tone-${toneOf(event.type)}`, text: typeWords(event.type) }),
    el("p", {},
      name === null ? null : nameOf(name, { class: "who", title: printable(event.model) }),
      name === null ? null : " ",
      el("span", { text: words }),
      el("span", { class: "muted source", title: event.type === "note" ? null : `seq ${event.seq}${event.lemond_seq ? `, lemond's log ${event.lemond_seq}` : ""}`, text: printable(event.source) })));
}
