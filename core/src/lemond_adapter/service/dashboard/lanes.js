// What the timeline shows, out of the journal: for each model, when it was in which state, what made it
// go, and where nobody was watching. Pure.

import { step, unseen } from "./fold.js";

const CAUSED_BY_ANOTHER = new Set(["lru", "npu_exclusivity", "load_failure_cascade"]);
const CLOSE_S = 15; // how soon after an unload the load that it made room for begins
const LOAD_ENDS = new Set(["model_loaded", "load_failed", "process_crashed", "model_evicted"]);

// What a model must have been before the first event that is known of it.
const BEFORE = {
  load_started: "offline", process_spawned: "starting", eviction_started: "ready", model_evicted: "ready",
  process_crashed: "ready", port_changed: "ready", pull_progress: "pulling", pull_finished: "pulling",
  pull_started: "offline", load_failed: "offline",
};

/** Unix seconds of an event. */
export const timeOf = (event) => Date.parse(event.at) / 1000;

/** What one event is called: `seq` counts anew in each run of the service. */
export const idOf = (event) => `${event.at} ${event.seq}`;

/**
 * Folds `events` (oldest first, of one or several runs of the service) into `lanes`: Map model ->
 * [{from, to, state, event}], `unloads`, `causes`: Map id of an event -> model that made the other go,
 * `stale` and `dark`: spans in which lemond was silent, or nobody watched; `begin`. What has not ended
 * has `to: null`. `complete`: the journal begins where the service did.
 */
export function lanesOf(events, complete) {
  const history = { lanes: new Map(), unloads: [], causes: new Map(), stale: [], dark: [], begin: null };
  const blame = new Blame();
  let views = new Map();
  let before = null;

  for (const event of events) {
    const at = timeOf(event);
    history.begin ??= at;
    if (before && event.seq !== before.seq + 1) {
      // Another run of the service, or rows that are lost: of what lies between nothing is known.
      end(history, timeOf(before));
      history.dark.push([timeOf(before), at]);
      views = new Map();
      blame.forget();
    }
    before = event;
    noteSilence(history.stale, event, at);
    if (event.model === null) continue;
    const segments = history.lanes.get(event.model) || [];
    history.lanes.set(event.model, segments);
    const blind = !complete && !history.dark.length;
    if (blind && !views.has(event.model) && BEFORE[event.type]) {
      segments.push({ from: history.begin, to: null, state: BEFORE[event.type], event: null });
    }
    const view = step(views.get(event.model) || unseen(event.model), event);
    views.set(event.model, view);
    follow(segments, view, event, at);
    noteUnload(history.unloads, event, at, blame);
    blame.see(event, at);
  }
  for (const unload of history.unloads) {
    if (unload.by !== null) for (const event of unload.events) history.causes.set(idOf(event), unload.by);
  }
  return history;
}

/** Whatever was open ends there. */
function end(history, at) {
  for (const segments of history.lanes.values()) if (segments.at(-1).to === null) segments.at(-1).to = at;
  const last = history.stale.at(-1);
  if (last && last[1] === null) last[1] = at;
}

function follow(segments, view, event, at) {
  const last = segments.at(-1);
  const anew = event.type === "model_loaded" || event.type === "port_changed";
  if (last && last.to === null && last.state === view.state && !anew) return;
  if (last && last.to === null) last.to = at;
  segments.push({ from: at, to: null, state: view.state, event });
}

function noteSilence(stale, event, at) {
  const open = stale.length && stale.at(-1)[1] === null;
  if (event.type === "lemond_lost" && !open) stale.push([at, null]);
  else if (event.type === "resynced" && open) stale.at(-1)[1] = at;
}

/** One row for each time a model went: the begin of an eviction and its end are one. */
function noteUnload(unloads, event, at, blame) {
  const open = unloads.findLast((unload) => unload.model === event.model);
  if (event.type === "model_evicted" && open && open.end === null) {
    open.end = at;
    open.events.push(event);
    if (open.reason === "unknown") open.reason = event.reason;
    return;
  }
  if (event.type === "model_loaded" && open && open.end === null) {
    unloads.splice(unloads.indexOf(open), 1); // it was called off
    return;
  }
  if (!["eviction_started", "model_evicted", "process_crashed", "load_failed"].includes(event.type)) return;
  const began = event.type === "eviction_started";
  const unload = { model: event.model, at, end: began ? null : at, reason: event.reason ?? null, events: [event], by: null };
  if (event.type === "load_failed") unload.reason = null;
  unloads.push(unload);
  if (CAUSED_BY_ANOTHER.has(unload.reason)) blame.ask(unload);
}

/** Finds the model whose load made another one go: the load that was open then, else the next to begin. */
class Blame {
  #open = null; // the model that is being loaded
  #failed = null; // the last one whose load failed, and when
  #asked = []; // unloads that nobody is to blame for yet

  ask(unload) {
    const failed = this.#failed && unload.at - this.#failed.at < CLOSE_S ? this.#failed.model : null;
    const by = unload.reason === "load_failure_cascade" ? this.#open ?? failed : this.#open;
    if (by !== null && by !== unload.model) unload.by = by;
    else this.#asked.push(unload);
  }

  see(event, at) {
    if (event.type === "load_started") {
      this.#open = event.model;
      for (const unload of this.#asked) {
        if (unload.model !== event.model && at - (unload.end ?? unload.at) < CLOSE_S) unload.by = event.model;
      }
      this.#asked = this.#asked.filter((unload) => unload.by === null && at - unload.at < 60);
    } else if (event.model === this.#open && LOAD_ENDS.has(event.type)) {
      this.#open = null;
    }
    if (event.type === "load_failed") this.#failed = { model: event.model, at };
  }

  forget() {
    this.#open = this.#failed = null;
    this.#asked = [];
  }
}
