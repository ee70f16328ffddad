// The cards of the slots. A dot moves when the truth does: a button that was pressed moves none.

import { byId, el, nameOf, printable, setAttr, setText } from "./dom.js";
import { ask } from "./service.js";
import { charts } from "./spark.js";
import { ON_ITS_WAY, RESIDENT, lasting, span } from "./words.js";

const PATIENCE_S = 20;

export class Slots {
  #cards = new Map();

  constructor(store) {
    this.store = store;
    this.root = byId("cards");
    byId("warm").addEventListener("click", () => this.#warm());
  }

  /** Everything; cheap where nothing changed. */
  render() {
    const { store } = this;
    const names = new Set(store.catalogue.map(({ name }) => name));
    for (const [name, card] of this.#cards) {
      if (!names.has(name)) {
        card.node.remove();
        this.#cards.delete(name);
      }
    }
    store.catalogue.forEach((row, index) => {
      const card = this.#card(row);
      if (this.root.children[index] !== card.node) this.root.insertBefore(card.node, this.root.children[index] || null);
      card.update(store.slot(row));
    });
    this.#around();
  }

  /** The slots of one model: what an event is about. */
  changed(model) {
    for (const row of this.store.catalogue) {
      if (row.model_id !== model) continue;
      if (!this.#cards.has(row.name)) return this.render();
      const card = this.#cards.get(row.name);
      card.answered();
      card.update(this.store.slot(row));
    }
    this.#around();
    return undefined;
  }

  /** Countdowns and charts, once a second. */
  tick() {
    const buckets = this.store.chartBuckets();
    for (const row of this.store.catalogue) this.#cards.get(row.name)?.tick(this.store, buckets);
    setText(byId("charts-range"), this.store.traffic.size ? `charts: last ${span(buckets * this.store.bucketS)}` : "");
  }

  /** The connection changed: buttons, and how sure the page is. */
  #around() {
    const { store } = this;
    const live = store.link.state === "live";
    const rows = store.catalogue.map((row) => store.slot(row));
    const loaded = rows.filter((row) => RESIDENT.has(row.state)).length;
    const coming = rows.filter((row) => ON_ITS_WAY.has(row.state)).length;
    const parts = [`${loaded} of ${rows.length} loaded`];
    if (coming) parts.push(`${coming} on the way`);
    const failed = rows.filter((row) => row.state === "error").length;
    if (failed) parts.push(`${failed} failed`);
    setText(byId("slots-summary"), store.known && rows.length ? parts.join(", ") : "");
    const can = live && store.status.lemond?.reachable;
    byId("warm").disabled = !can || rows.every((row) => RESIDENT.has(row.state) || !row.enabled);
    byId("warm").hidden = rows.length === 0;
    this.#empty(rows.length);
  }

  #empty(count) {
    const { store } = this;
    const box = byId("slots-empty");
    box.hidden = count > 0;
    if (count) return;
    const lemond = store.status.lemond;
    if (!store.known) {
      box.replaceChildren(el("p", { text: store.link.state === "locked" ? "Waiting for the API key." : "Waiting for the service." }));
    } else if (lemond && !lemond.reachable) {
      box.replaceChildren(
        el("p", { class: "empty-title", text: "Nothing is known yet" }),
        el("ol", { class: "steps" },
          el("li", {}, "Is lemond running? Start it, and this page fills by itself."),
          el("li", {}, "Is it somewhere else? Tell the service: ", el("code", { text: "lemond-adapter serve --lemond http://HOST:PORT" })),
          el("li", {}, "What exactly is wrong: ", el("code", { text: `lemond-adapter doctor --lemond ${printable(lemond.url)}` }))));
    } else {
      box.replaceChildren(
        el("p", { class: "empty-title", text: "No slots, and no model is loaded" }),
        el("ol", { class: "steps" },
          el("li", {}, "What can be served: ", el("a", { href: "/v1/models", text: "/v1/models" })),
          el("li", {}, "Send a request with one of these names, and the model is loaded and shown here:",
            el("pre", { text: `curl ${location.origin}/v1/chat/completions \\\n  -d '{"model": "NAME", "messages": [{"role": "user", "content": "hello"}]}'` })),
          el("li", {}, "To give a model the name of a slot, start the service with --config FILE, and in it:",
            el("pre", { text: '[slots.primary]\nmodel = "NAME"' }))));
    }
  }

  #card(row) {
    let card = this.#cards.get(row.name);
    if (!card || card.model !== row.model_id) {
      card?.node.remove();
      card = new Card(this.store, row);
      this.#cards.set(row.name, card);
    }
    return card;
  }

  async #warm() {
    const names = this.store.catalogue.filter(({ enabled }) => enabled).map(({ name }) => name)
      .filter((name) => !RESIDENT.has(this.store.slot(this.store.catalogue.find((row) => row.name === name)).state));
    const note = byId("warm-note");
    note.hidden = false;
    try {
      await ask("POST", "/api/v1/adapter/warm?wait=0", { slots: names.slice(0, 64) });
      setText(note, `Asked to load ${names.length} in turn.`);
    } catch (problem) {
      setText(note, `Not warmed: ${problem.message}`);
    }
    setTimeout(() => (note.hidden = true), PATIENCE_S * 1000);
  }
}

class Card {
  #asked = null; // what was asked for and when, until the truth moves

  constructor(store, row) {
    this.store = store;
    this.name = row.name;
    this.model = row.model_id;
    const id = `slot-${Math.random().toString(36).slice(2)}`;
    this.dot = el("span", { class: "dot", "aria-hidden": "true" });
    this.state = el("span", { class: "state" });
    this.kind = el("span", { class: "kind" });
    this.message = el("p", { class: "message" });
    this.note = el("p", { class: "note", role: "status" });
    this.facts = Object.fromEntries(FACTS.map(([key]) => [key, el("dd", { class: `fact-${key}`, text: "–" })]));
    this.load = el("button", { type: "button", text: "Load", onclick: () => this.#ask("load") });
    this.unload = el("button", { type: "button", text: "Unload", onclick: () => this.#ask("unload") });
    // "Load primary" to those who hear the page, "Load" to those who see it.
    const whose = printable(row.name);
    this.charts = charts(whose);
    this.whose = whose;
    this.node = el("article", { class: "card", "aria-labelledby": id, "data-slot": row.name, "data-model": row.model_id },
      el("div", { class: "card-head" },
        this.dot,
        el("div", { class: "card-title" },
          el("div", { class: "card-name" }, el("h3", { id }, nameOf(row.name)), this.kind),
          row.name === row.model_id ? null : el("p", { class: "model" }, nameOf(row.model_id))),
        this.state,
        el("div", { class: "buttons" }, this.load, this.unload)),
      el("dl", { class: "facts" }, ...FACTS.map(([key, label, title]) =>
        el("div", { title }, el("dt", { text: label }), this.facts[key]))),
      el("div", { class: "words" }, this.message, this.note),
      this.charts.node);
  }

  /** Something happened to the model: what was asked for is no longer pending. */
  answered() {
    if (this.#asked) {
      this.#asked = null;
      setText(this.note, "");
    }
  }

  update(slot) {
    this.slot = slot;
    const live = this.store.link.state === "live";
    const { state } = slot;
    const doubtful = slot.stale || !live;
    setAttr(this.dot, "data-state", state);
    setAttr(this.node, "data-state", state);
    setAttr(this.node, "data-stale", doubtful ? "" : null);
    setText(this.state, doubtful ? `was ${state}` : state);
    setText(this.kind, [slot.type, slot.backend].filter(Boolean).join(" · "));
    setText(this.message, slot.enabled ? printable(slot.message || "") : "disabled by configuration");
    this.message.hidden = !this.message.textContent;
    setText(this.facts.port, slot.port ? String(slot.port) : "–");
    setText(this.facts.pid, slot.pid ? String(slot.pid) : "–");
    setText(this.facts.generation, String(slot.generation));
    setText(this.facts.loads, String(slot.loads));
    setText(this.facts.inflight, String(slot.inFlight));
    const can = live && Boolean(this.store.status.lemond?.reachable);
    this.load.disabled = !can || RESIDENT.has(state) || ON_ITS_WAY.has(state) || !slot.enabled;
    this.unload.disabled = !can || !RESIDENT.has(state) || state === "unloading";
    setAttr(this.load, "aria-label", `Load ${this.whose}`);
    setAttr(this.unload, "aria-label", `Unload ${this.whose}`);
    this.#countdown();
  }

  tick(store, buckets) {
    this.#countdown();
    this.charts.draw(store.traffic.get(this.name), store.now(), store.bucketS, buckets);
    if (this.#asked && store.now() - this.#asked.at > PATIENCE_S) {
      setText(this.note, `${this.#asked.what} was asked for; lemond has shown no sign of it yet.`);
    }
  }

  #countdown() {
    const deadline = this.slot.idleDeadline;
    let text = "–";
    if (this.slot.inFlight > 0) text = "busy";
    else if (deadline !== null) {
      const left = deadline - this.store.now();
      text = left > 0 ? lasting(left) : "due";
    } else if (["ready", "idle"].includes(this.slot.state)) text = "never";
    setText(this.facts.idle, text);
  }

  async #ask(what) {
    this.#asked = { what: what === "load" ? "Loading" : "Unloading", at: this.store.now() };
    const asked = this.#asked;
    const { inFlight } = this.slot;
    const wait = what === "unload" && inFlight ? ` Requests in flight (${inFlight}) may end first.` : "";
    setText(this.note, `${asked.what} was asked for.${wait}`);
    try {
      await ask("POST", `/api/slots/${encodeURIComponent(this.name)}/${what}`);
    } catch (problem) {
      if (this.#asked === asked) this.#asked = null;
      setText(this.note, `Not done: ${problem.message}`);
    }
  }
}

const FACTS = [
  ["port", "Port", "Where the model's own server listens"],
  ["pid", "Pid", "The process of the model's own server"],
  ["inflight", "In flight", "Requests that run now"],
  ["idle", "Idle out in", "When it is unloaded unless it is used"],
  ["generation", "Generation", "Grows with each new process or port"],
  ["loads", "Loads", "How often it was loaded since the service started"],
];
