// What states, events and reasons are called; times and numbers for people.

import { printable } from "./dom.js";

export const STATES = [
  "pulling", "starting", "warming", "ready", "serving", "idle", "unloading", "offline", "error",
];

export const RESIDENT = new Set(["ready", "serving", "idle", "unloading"]);
export const ON_ITS_WAY = new Set(["pulling", "starting", "warming"]);

const REASONS = {
  idle: "idle for too long",
  oom: "out of memory",
  manual: "somebody asked for it",
  load_failure_cascade: "another model failed to load, and lemond unloaded all",
  lru: "to make room for another model",
  npu_exclusivity: "another model needed the NPU",
  reload: "reloaded with other options",
  shutdown: "lemond shut down",
  unknown: "lemond gave no reason",
};

export const reasonWords = (reason) => REASONS[reason] || printable(reason || "unknown");

// The journal's filters: each kind of event belongs to one.
export const KINDS = {
  loads: ["load_started", "process_spawned", "model_loaded", "port_changed"],
  unloads: ["eviction_started", "model_evicted"],
  failures: ["load_failed", "process_crashed"],
  pulls: ["pull_started", "pull_progress", "pull_finished"],
  notes: ["note"],
  lemond: ["lemond_started", "lemond_lost", "resynced"],
};

const TONES = {
  load_started: "busy", process_spawned: "busy", model_loaded: "good", port_changed: "busy",
  eviction_started: "going", model_evicted: "off", load_failed: "bad", process_crashed: "bad",
  pull_started: "busy", pull_progress: "busy", pull_finished: "good",
  lemond_started: "good", lemond_lost: "bad", resynced: "off", note: "off",
};

export const toneOf = (type) => TONES[type] || "off";
export const kindOf = (type) => Object.keys(KINDS).find((kind) => KINDS[kind].includes(type)) || "lemond";
export const typeWords = (type) => printable(type).replaceAll("_", " ");

/** One event as a sentence. `by`: the model that made another one go. */
export function sentence(event, by = null) {
  const whose = event.initiator === "adapter" ? " (by the adapter)" : "";
  const cause = by ? `to make room for ${printable(by)}` : reasonWords(event.reason);
  switch (event.type) {
    case "pull_started": return "download began";
    case "pull_progress": return `downloading, ${Math.round(event.percent)} %`;
    case "pull_finished": return event.ok ? "download finished" : `download failed: ${printable(event.reason)}`;
    case "load_started": return `lemond is loading it${whose}`;
    case "process_spawned": return `its server started, pid ${event.pid}`;
    case "model_loaded": return `ready on port ${event.port ?? "?"}, pid ${event.pid ?? "not visible"}${whose}`;
    case "port_changed": return `moved from port ${event.old_port ?? "?"} to ${event.new_port ?? "?"}`;
    case "load_failed": return `load failed (${typeWords(event.kind)}): ${printable(event.reason)}`;
    case "eviction_started": return `is being unloaded: ${cause}${whose}`;
    case "model_evicted": return `unloaded: ${cause}${whose}`;
    case "process_crashed": return `its server, pid ${event.pid}, died (${printable(event.exit ?? "no exit status")})`;
    case "lemond_started":
      return `lemond ${printable(event.version ?? "of unknown version")}, read by ${printable(event.driver)} (${event.driver_match})`;
    case "lemond_lost": return `lemond does not answer: ${printable(event.reason)}`;
    case "resynced":
      return `compared with lemond's own list (${event.reason}): ${event.changes === 0 ? "nothing differed" : `${event.changes} changes`}`;
    case "note": return printable(event.text);
    default: return "";
  }
}

/** 15 min, 40 s. */
export const span = (seconds) => (seconds >= 60 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`);

const pad = (number, width = 2) => String(Math.floor(number)).padStart(width, "0");

/** 12:03:11 in the reader's own time zone. `at`: Unix seconds. */
export function clock(at, millis = false) {
  const date = new Date(at * 1000);
  const text = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return millis ? `${text}.${pad(date.getMilliseconds(), 3)}` : text;
}

/** 45 s, 4:05, 1:02:03. */
export function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const hours = Math.floor(whole / 3600);
  const rest = `${hours ? pad((whole % 3600) / 60) : Math.floor(whole / 60)}:${pad(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** Three figures at most. */
export function short(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)} k`;
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** 240 ms, 3.1 s. */
export const millis = (value) => (value >= 1000 ? `${short(value / 1000)} s` : `${short(Math.round(value))} ms`);
