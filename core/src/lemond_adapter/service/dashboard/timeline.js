// The timeline: a lane for each slot, coloured by state, and lines from what was loaded to what had to go.

import { byId, el, nameOf, printable, setText, svg } from "./dom.js";
import { STATES, clock, lasting, reasonWords, sentence } from "./words.js";

const LANE = 34;
const BAR = 18;
const AXIS = 20;
const LEAST = 60;
const MOST = 3600;
const RANGES = [["Fit", null], ["5 min", 300], ["15 min", 900], ["1 hour", MOST]];
const STEPS = [5, 10, 30, 60, 120, 300, 600, 900];

export class Timeline {
  #range = null; // seconds; null: as much as there is, an hour at most
  #told = null; // the segment under the pointer, or chosen by key

  constructor(store) {
    this.store = store;
    this.root = byId("chart");
    this.width = 0;
    for (const [label, range] of RANGES) {
      byId("ranges").append(el("button", {
        type: "button", class: "quiet", text: label, "aria-pressed": String(range === this.#range),
        onclick: (event) => this.#choose(range, event.target),
      }));
    }
    byId("legend").append(...STATES.filter((state) => state !== "serving" && state !== "idle").map((state) =>
      el("li", {}, el("span", { class: "swatch", "data-state": state, "aria-hidden": "true" }), state)));
    this.names = el("ul", { class: "lane-names" });
    this.picture = svg("svg", { class: "lanes", role: "img", "aria-label": "States of each slot over time" });
    this.frame = el("div", {
      class: "lane-frame", tabindex: "0", role: "group",
      "aria-label": "Timeline. Arrow keys move from one change to the next.",
      onkeydown: (event) => this.#keys(event),
      onpointermove: (event) => this.#point(event),
      onpointerleave: () => this.#tell(null),
    }, this.picture);
    this.root.append(this.names, this.frame);
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width !== this.width) { this.width = width; this.render(); }
    }).observe(this.frame);
  }

  /** Draws `store.history()` up to now. */
  render() {
    const { store } = this;
    const rows = store.catalogue;
    byId("timeline").hidden = !store.known || rows.length === 0;
    if (!store.known || !rows.length || !this.width) return;
    const now = store.now();
    const found = ended(store.history(), now);
    const range = this.#range ?? Math.min(Math.max(now - found.begin, LEAST), MOST);
    const start = now - range;
    const x = (at) => ((Math.max(at, start) - start) / range) * this.width;
    const height = rows.length * LANE + AXIS;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.picture.setAttribute("height", height);
    this.#segments = [];
    const parts = [...axis(start, now, range, x, height), ...this.#dark(found, start, now, x, height)];
    rows.forEach((row, index) => parts.push(...this.#lane(row, index, found, start, now, x)));
    parts.push(...found.stale.filter(([, to]) => to > start).map(([from, to]) =>
      svg("rect", { class: "lane-stale", x: x(from), y: 0, width: Math.max(1, x(to) - x(from)), height: height - AXIS })));
    parts.push(...this.#arrows(rows, found, start, x));
    this.picture.replaceChildren(...parts);
    this.#label(rows);
    this.#list(found, start);
    this.picture.setAttribute("aria-label", `States of ${rows.length} slots over the last ${lasting(range)}`);
  }

  #segments = [];

  #choose(range, button) {
    this.#range = range;
    for (const other of byId("ranges").children) other.setAttribute("aria-pressed", String(other === button));
    this.render();
  }

  #label(rows) {
    const names = rows.map(({ name }) => name).join("\n");
    if (this.names.dataset.names === names) return;
    this.names.dataset.names = names;
    this.names.replaceChildren(...rows.map((row) => el("li", { title: printable(row.name) }, nameOf(row.name))));
  }

  #lane(row, index, found, start, now, x) {
    const y = index * LANE + (LANE - BAR) / 2;
    const parts = [svg("line", { class: "lane-base", x1: 0, x2: this.width, y1: y + BAR / 2, y2: y + BAR / 2 })];
    let segments = found.lanes.get(row.model_id) || [];
    if (!segments.length) {
      // No event of it: it has been as it is since it last changed, as far as anybody watched.
      const slot = this.store.slot(row);
      const since = Math.max(slot.changedAt ?? found.begin, found.begin);
      const state = ["serving", "idle"].includes(slot.state) ? "ready" : slot.state;
      segments = [{ from: since, to: now, state, event: null }];
    }
    for (const segment of segments) {
      if (segment.to < start) continue;
      const left = x(segment.from);
      const width = Math.max(2, x(segment.to) - left);
      this.#segments.push({ ...segment, row, index, left, right: left + width });
      if (segment.state === "offline") continue;
      parts.push(svg("rect", { class: "lane-bar", "data-state": segment.state, x: left, y, width, height: BAR, rx: 3 }));
      if (segment.event?.type === "model_loaded" && segment.from > start) {
        parts.push(svg("line", { class: "lane-tick", x1: left, x2: left, y1: y, y2: y + BAR }));
      }
    }
    for (const unload of found.unloads) {
      if (unload.model !== row.model_id || unload.at < start) continue;
      const crashed = unload.reason === null;
      const at = x(unload.at);
      parts.push(crashed
        ? svg("path", { class: "lane-crash", d: `M${at - 4} ${y + 5}l8 8m0 -8l-8 8` })
        : svg("circle", { class: "lane-gone", cx: at, cy: y + BAR / 2, r: 3.5 }));
    }
    return parts;
  }

  #dark(found, start, now, x, height) {
    const spans = [...found.dark];
    if (found.begin > start) spans.push([start, found.begin]);
    return spans.filter(([, to]) => to > start).map(([from, to]) => svg("g", {},
      svg("rect", { class: "lane-dark", x: x(from), y: 0, width: Math.max(0, x(to) - x(from)), height: height - AXIS }),
      ...(x(to) - x(from) > 90
        ? [svg("text", { class: "lane-dark-text", x: (x(from) + x(to)) / 2, y: (height - AXIS) / 2 + 4, text: "not watched" })]
        : [])));
  }

  #arrows(rows, found, start, x) {
    const lane = new Map(rows.map((row, index) => [row.model_id, index]));
    const parts = [];
    for (const { model, by, at } of found.unloads) {
      if (by === null || at < start || !lane.has(model) || !lane.has(by)) continue;
      const from = lane.get(by) * LANE + LANE / 2;
      const to = lane.get(model) * LANE + LANE / 2;
      const side = Math.min(12, this.width - x(at));
      parts.push(svg("path", { class: "lane-arrow", d: `M${x(at)} ${from}C${x(at) + side} ${from} ${x(at) + side} ${to} ${x(at)} ${to}` }));
    }
    return parts;
  }

  #list(found, start) {
    const recent = found.unloads.filter(({ at }) => at >= start).slice(-100).reverse();
    const id = recent.map(({ at, model, by, reason }) => `${at}${model}${by}${reason}`).join();
    if (this.listed === id) return;
    this.listed = id;
    const slots = new Map(this.store.catalogue.map(({ name, model_id }) => [model_id, name]));
    const rows = recent.map(({ at, model, by, reason, events }) => el("tr", {},
      el("td", {}, el("time", { text: clock(at) })),
      el("td", {}, nameOf(slots.get(model) || model)),
      el("td", { text: reason === null ? sentence(events[0]) : reasonWords(reason) }),
      el("td", {}, by === null ? "" : nameOf(slots.get(by) || by))));
    byId("unloads").replaceChildren(rows.length
      ? el("table", {},
        el("thead", {}, el("tr", {}, ...["When", "Slot", "Why", "For"].map((text) => el("th", { scope: "col", text })))),
        el("tbody", {}, ...rows))
      : el("p", { class: "muted", text: "Nothing, in the time shown." }));
  }

  #point(event) {
    const box = this.picture.getBoundingClientRect();
    const px = event.clientX - box.left;
    const index = Math.floor((event.clientY - box.top) / LANE);
    this.#tell(this.#segments.findLast((segment) => segment.index === index && segment.left <= px && px <= segment.right + 2));
  }

  #keys(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0 }[event.key];
    if (move === undefined || !this.#segments.length) return;
    event.preventDefault();
    const told = this.#told;
    const current = told ? this.#segments.findIndex((segment) => segment.index === told.index && segment.from === told.from) : -1;
    let next;
    if (current < 0) next = this.#segments.at(-1);
    else if (move) next = this.#segments[current + move];
    else {
      const lane = told.index + (event.key === "ArrowDown" ? 1 : -1);
      next = this.#segments.findLast((segment) => segment.index === lane && segment.left <= told.right) ||
        this.#segments.find((segment) => segment.index === lane);
    }
    if (next) this.#tell(next);
  }

  #tell(segment) {
    this.#told = segment || null;
    const name = segment ? printable(segment.row.name) : "";
    const cause = segment?.event ? `: ${sentence(segment.event, this.store.causeOf(segment.event))}` : "";
    setText(byId("readout"), segment
      ? `${name} was ${segment.state} from ${clock(segment.from)} for ${lasting(segment.to - segment.from)}${cause}`
      : "");
  }
}

/** The same history with an end for everything, so that it can be drawn. */
function ended(history, now) {
  const close = (span) => [span[0], span[1] ?? now];
  const lanes = new Map([...history.lanes].map(([model, segments]) =>
    [model, segments.map((segment) => ({ ...segment, to: segment.to ?? now }))]));
  return { ...history, lanes, stale: history.stale.map(close), begin: history.begin ?? now };
}

function* axis(start, now, range, x, height) {
  const space = STEPS.find((seconds) => range / seconds <= Math.max(3, x(now) / 90)) || STEPS.at(-1);
  for (let at = Math.ceil(start / space) * space; at <= now; at += space) {
    const px = x(at);
    yield svg("line", { class: "lane-grid", x1: px, x2: px, y1: 0, y2: height - AXIS });
    if (px < 24 || px > x(now) - 24) continue;
    yield svg("text", { class: "lane-time", x: px, y: height - 5, text: space < 60 ? clock(at) : clock(at).slice(0, 5) });
  }
}
