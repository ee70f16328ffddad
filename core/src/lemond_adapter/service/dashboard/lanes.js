// What the timeline shows, out of the journal: for each model, when it was in which state, what made it
// go, and where nobody was watching. Pure.

import { step, unseen } from "./fold.js";

const CAUSED_BY_ANOTHER = new Set(["lru", "npu_exclusivity", "load_failure_cascade"]);
const CLOSE_S = 15; // how soon after an unload the load it made room for begins

const seconds = (event) => Date.parse(event.at) / 1000;

// What a model must have been before the first event we have of it.
const BEFORE = {
  load_started: "offline", process_spawned: "starting", eviction_started: "ready", model_evicted: "ready",
  process_crashed: "ready", port_changed: "ready", pull_progress: "pulling", pull_finished: "pulling",
  pull_started: "offline", load_failed: "offline",
};

/**
 * Folds `events` (oldest first, of one or several runs of the service) into
 * `{lanes: Map model -> [{from, to, state, event}], unloads: [...], stale: [[from, to]], dark: [[from, to]], begin}`.
 * `complete`: the journal begins where the service did. `now`: the end of the last segments.
 */
export function lanesOf(events, now, complete) {
  const lanes = new Map();
  const unloads = [];
  const stale = [];
  const dark = [];
  let views = new Map();
  let lostAt = null;
  let before = null;
  let begin = events.length ? seconds(events[0]) : now;

  const lane = (model) => {
    if (!lanes.has(model)) lanes.set(model, []);
    return lanes.get(model);
  };
  const close = (at) => {
    for (const segments of lanes.values()) {
      const last = segments.at(-1);
      if (last && last.to === null) last.to = at;
    }
  };

  for (const event of events) {
    const at = seconds(event);
    if (before && event.seq <= before.seq) {
      // Another run of the service: between the two nobody watched.
      close(seconds(before));
      if (lostAt !== null) stale.push([lostAt, seconds(before)]);
      lostAt = null;
      dark.push([seconds(before), at]);
      views = new Map();
    }
    before = event;
    if (event.type === "lemond_lost") lostAt ??= at;
    else if (event.type === "resynced" && lostAt !== null) {
      stale.push([lostAt, at]);
      lostAt = null;
    }
    if (event.model === null) continue;
    const segments = lane(event.model);
    const old = views.get(event.model);
    if (!old && !complete && dark.length === 0 && BEFORE[event.type] && segments.length === 0) {
      segments.push({ from: begin, to: null, state: BEFORE[event.type], event: null });
    }
    const view = step(old || unseen(event.model), event);
    views.set(event.model, view);
    const last = segments.at(-1);
    const anew = event.type === "model_loaded" || event.type === "port_changed";
    if (!last || last.to !== null || last.state !== view.state || anew) {
      if (last && last.to === null) last.to = at;
      segments.push({ from: at, to: null, state: view.state, event });
    }
    note(unloads, event, at);
  }
  close(now);
  if (lostAt !== null) stale.push([lostAt, now]);
  for (const unload of unloads) if (unload.by === null) unload.by = culprit(unload, events);
  return { lanes, unloads, stale, dark, begin };
}

/** One row for each time a model went: the begin of an eviction and its end are one. */
function note(unloads, event, at) {
  if (event.type === "eviction_started") {
    unloads.push({ model: event.model, at, end: null, reason: event.reason, event, by: null });
  } else if (event.type === "model_evicted") {
    const open = unloads.findLast((unload) => unload.model === event.model && unload.end === null);
    if (open && open.event.type === "eviction_started") {
      open.end = at;
      if (open.reason === "unknown") open.reason = event.reason;
    } else {
      unloads.push({ model: event.model, at, end: at, reason: event.reason, event, by: null });
    }
  } else if (event.type === "process_crashed" || event.type === "load_failed") {
    unloads.push({ model: event.model, at, end: at, reason: null, event, by: null });
  }
}

/** The model whose load made another one go: the load that was open then, else the next one to begin. */
function culprit(unload, events) {
  if (!CAUSED_BY_ANOTHER.has(unload.reason)) return null;
  let open = null;
  for (const event of events) {
    const at = seconds(event);
    if (event.model === null || event.model === unload.model) continue;
    if (at <= unload.at) {
      if (event.type === "load_started") open = event.model;
      else if (event.model === open && ["model_loaded", "load_failed", "process_crashed"].includes(event.type)) open = null;
      if (event.type === "load_failed" && unload.reason === "load_failure_cascade" && unload.at - at < CLOSE_S) open = event.model;
    } else if (open !== null || at > (unload.end ?? unload.at) + CLOSE_S) {
      break;
    } else if (event.type === "load_started") {
      return event.model;
    }
  }
  return open;
}
