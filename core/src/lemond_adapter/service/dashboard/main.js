// Puts the page together: what arrives goes into the store, then to the views it concerns.

import { About, banners } from "./about.js";
import { byId, setText } from "./dom.js";
import { Journal } from "./journal.js";
import { Stream, ask, key } from "./service.js";
import { Slots } from "./slots.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { clock } from "./words.js";

const HIDDEN_MS = 30_000;
const PAST = 1000;

const store = new Store();
const slots = new Slots(store);
const timeline = new Timeline(store);
const journal = new Journal(store);
const about = new About(store);
const stream = new Stream("/api/v1/adapter/events?traffic=1", onEvent, onLink, () => store.heard());

// Dots are drawn in the same turn as the event is read. What is only looked back at can wait a moment.
let waiting = null;
function soon() {
  waiting ??= setTimeout(() => {
    waiting = null;
    timeline.render();
    journal.render();
    about.render();
  }, 60);
}

function onEvent(type, data) {
  if (type === "snapshot") {
    store.snapshot(data);
    slots.render();
    about.render();
    // In the middle of a stream it says that events are missing; at its beginning, the first frame follows.
    if (store.link.state === "live") fetchPast();
  } else if (type === "traffic") {
    store.frame(data);
    if (data.full) fetchPast();
    slots.render();
    slots.tick();
    if (data.status || data.traffic?.[""]) about.render();
    if (data.catalogue || data.notes) soon();
  } else if (store.event(data)) {
    if (data.model === null) slots.render();
    else slots.changed(data.model);
    say(data);
    soon();
  }
  banners(store, () => stream.retry());
}

async function fetchPast() {
  try {
    store.past(await ask("GET", `/api/v1/adapter/journal?limit=${PAST}`), PAST);
    soon();
  } catch (problem) {
    setText(byId("journal-count"), `the past could not be fetched: ${problem.message}`);
  }
}

const LINKS = { connecting: "Connecting", live: "Live", lost: "Disconnected", locked: "API key wanted", paused: "Paused" };

function onLink(state, why) {
  store.link = { state, why: why || null, since: Date.now() / 1000 };
  document.documentElement.dataset.connection = state;
  const asOf = store.known && state !== "live" ? `, as of ${clock(store.truthAt)}` : "";
  setText(byId("link-text"), LINKS[state] + asOf);
  document.title = state === "live" ? "lemond-adapter" : `${LINKS[state]}: lemond-adapter`;
  if (state === "locked") askForKey(why);
  slots.render();
  about.render();
  banners(store, () => stream.retry());
}

function askForKey(why) {
  const dialog = byId("key-dialog");
  if (why) setText(byId("key-why"), why);
  if (!dialog.open) dialog.showModal();
  byId("key-input").focus();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(byId("key-input").value);
  byId("key-input").value = "";
  byId("key-dialog").close();
  stream.retry();
});
byId("key-dialog").addEventListener("cancel", (event) => event.preventDefault());

// What those who hear the page are told: where a slot came to, not every step.
const TOLD = { model_loaded: "is ready", model_evicted: "was unloaded", process_crashed: "died", load_failed: "failed to load" };

function say(event) {
  const words = TOLD[event.type];
  if (words) setText(byId("said"), `${event.slot ?? event.model} ${words}`);
}

// Light, dark, or as the system has it.
const THEMES = ["auto", "light", "dark"];

function theme(choice) {
  if (choice === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  setText(byId("theme"), `◐ ${choice}`);
  byId("theme").setAttribute("aria-label", `Theme: ${choice}`);
  localStorage.setItem("lemond-adapter.theme", choice);
}

let chosen = localStorage.getItem("lemond-adapter.theme");
if (!THEMES.includes(chosen)) chosen = "auto";
theme(chosen);
byId("theme").addEventListener("click", () => {
  chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
  theme(chosen);
});

let hiding = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => stream.pause(true), HIDDEN_MS);
  else stream.pause(false);
});
window.addEventListener("online", () => stream.retry());

setInterval(() => {
  if (store.link.state !== "live") return;
  slots.tick();
}, 1000);
setInterval(() => {
  if (store.link.state === "live") timeline.render();
}, 2000);

onLink("connecting");
stream.run();
