// Everything the page knows. Events and frames change it; the views read it.

import { emptyView, fold, unseen } from "./fold.js";
import { idOf, lanesOf } from "./lanes.js";

const KEPT = 5000;
const KEPT_NOTES = 1000;
const LEAST_BUCKETS = 18;

export class Store {
  link = { state: "connecting", why: null, since: Date.now() / 1000 };
  view = emptyView();
  catalogue = [];
  live = new Map(); // by slot: state, in_flight, idle_deadline, last_used_at
  traffic = new Map(); // by slot: outcomes, retry_after_s, buckets (a Map by start)
  status = {};
  journal = []; // events, oldest first
  notes = []; // decisions of the service, oldest first
  journalComplete = false; // whether it begins where the service began
  epoch = null;
  bucketS = 10;
  bucketCount = 90;
  known = false; // whether any truth has arrived
  truthAt = null; // when the last of it did, Unix time of the service
  #skew = 0;
  #seen = new Set();
  #history = null;

  /** Unix seconds by the service's clock; stands still while nothing is heard from it. */
  now() {
    return this.link.state === "live" || this.truthAt === null ? Date.now() / 1000 + this.#skew : this.truthAt;
  }

  /** Something came from the service, a heartbeat at least: what is shown holds until now. */
  heard() {
    this.truthAt = Date.now() / 1000 + this.#skew;
  }

  snapshot(data) {
    const renewed = this.epoch !== data.epoch;
    this.epoch = data.epoch;
    this.known = true;
    this.view = emptyView();
    this.view.seq = data.seq;
    this.view.stale = !data.lemond.reachable;
    this.catalogue = data.slots.map(({ name, model_id, type, backend, enabled }) => ({ name, model_id, type, backend, enabled }));
    this.live = new Map();
    for (const row of data.slots) {
      const { metadata } = row;
      this.view.models.set(row.model_id, {
        ...unseen(row.model_id),
        state: row.state === "serving" || row.state === "idle" ? "ready" : row.state,
        port: row.port || null,
        pid: metadata.pid ?? null,
        generation: metadata.generation,
        loads: metadata.loads,
        message: metadata.message,
        changedAt: metadata.updated_at,
      });
      this.live.set(row.name, {
        state: row.state,
        in_flight: metadata.in_flight,
        idle_deadline: metadata.idle_deadline,
        last_used_at: row.last_used_at,
      });
    }
    this.status = { ...this.status, lemond: data.lemond };
    if (renewed) this.traffic = new Map();
  }

  /** One SlotEvent; true when it is new. */
  event(event) {
    if (event.seq <= this.view.seq) return false;
    fold(this.view, event);
    this.#remember(event);
    if (event.model !== null && !this.catalogue.some((slot) => slot.model_id === event.model)) {
      this.catalogue.push({ name: event.model, model_id: event.model, type: "", backend: "", enabled: true });
    }
    const lemond = this.status.lemond;
    if (event.type === "lemond_lost") {
      this.status = { ...this.status, lemond: { ...lemond, reachable: false, why: event.reason, since: event.at } };
    } else if (event.type === "lemond_started") {
      const { version, driver, driver_match } = event;
      this.status = { ...this.status, lemond: { ...lemond, version, driver, driver_match, reachable: true, why: null } };
    } else if (event.type === "resynced") {
      this.status = { ...this.status, lemond: { ...lemond, reachable: true, why: null } };
    }
    return true;
  }

  /** A frame of traffic; whether the slots themselves are others than before. */
  frame(frame) {
    this.#skew = frame.now - Date.now() / 1000;
    let others = false;
    if (frame.full) {
      this.bucketS = frame.bucket_s;
      this.bucketCount = frame.buckets;
      this.traffic = new Map();
    }
    if (frame.catalogue) {
      others = true;
      this.catalogue = frame.catalogue;
    }
    for (const [name, live] of Object.entries(frame.slots || {})) this.live.set(name, live);
    for (const [name, news] of Object.entries(frame.traffic || {})) this.#count(name, news);
    for (const note of frame.notes || []) this.#noted(note);
    if (frame.status) this.status = { ...this.status, ...frame.status };
    return others;
  }

  #count(name, news) {
    const buckets = this.traffic.get(name)?.buckets || new Map();
    for (const bucket of news.buckets) buckets.set(bucket.start, bucket);
    const oldest = this.now() - this.bucketS * (this.bucketCount + 1);
    for (const start of buckets.keys()) if (start < oldest) buckets.delete(start);
    this.traffic.set(name, { outcomes: news.outcomes, retry_after_s: news.retry_after_s, buckets });
  }

  /** The answer to a request for the last `asked` events, of this run or earlier ones. */
  past(answer, asked) {
    const before = this.journal;
    this.journal = [];
    this.#seen = new Set();
    this.journalComplete = answer.oldest_seq <= 1 && answer.events.length < asked;
    for (const event of answer.events) this.#remember(event);
    const noted = this.notes;
    this.notes = [];
    for (const note of [...(answer.notes || []), ...noted]) this.#noted(note);
    // What came over the stream while the answer was on its way.
    const last = this.journal.at(-1);
    for (const event of before) if (!last || event.at >= last.at) this.#remember(event);
  }

  #noted(note) {
    const id = `${note.at} ${note.text}`;
    if (this.notes.some((other) => `${other.at} ${other.text}` === id)) return;
    this.notes.push(note);
    if (this.notes.length > KEPT_NOTES) this.notes.shift();
  }

  #remember(event) {
    const id = idOf(event);
    if (this.#seen.has(id)) return;
    this.#history = null;
    this.#seen.add(id);
    this.journal.push(event);
    if (this.journal.length > KEPT) {
      this.journalComplete = false;
      for (const old of this.journal.splice(0, KEPT / 10)) this.#seen.delete(idOf(old));
    }
  }

  /** The journal as lanes; made anew only when there is something new in it. */
  history() {
    this.#history ??= lanesOf(this.journal, this.journalComplete);
    return this.#history;
  }

  /** The slot that made another one go, if this event tells of that. */
  causeOf(event) {
    const model = this.history().causes.get(idOf(event));
    return model === undefined ? null : this.catalogue.find((slot) => slot.model_id === model)?.name ?? model;
  }

  /** How many buckets the charts show: as many as there are, but not so few that one looks like a trend. */
  chartBuckets() {
    let oldest = this.now();
    for (const { buckets } of this.traffic.values()) for (const start of buckets.keys()) oldest = Math.min(oldest, start);
    const count = Math.ceil((this.now() - oldest) / this.bucketS) + 2;
    return Math.min(this.bucketCount, Math.max(count, LEAST_BUCKETS));
  }

  /** A slot as it is to be shown now. */
  slot({ name, model_id, type, backend, enabled }) {
    const model = this.view.models.get(model_id) || unseen(model_id);
    const live = this.live.get(name) || {};
    // The events say whether it is there; that requests run in it, or that it rests, is told between them.
    const state = model.state === "ready" && ["serving", "idle"].includes(live.state) ? live.state : model.state;
    const there = ["ready", "serving", "idle"].includes(state);
    return {
      ...model, name, type, backend, enabled, state,
      stale: this.view.stale,
      inFlight: there || state === "unloading" ? live.in_flight || 0 : 0,
      idleDeadline: there && !live.in_flight ? live.idle_deadline ?? null : null,
      lastUsedAt: live.last_used_at ?? null,
    };
  }
}
