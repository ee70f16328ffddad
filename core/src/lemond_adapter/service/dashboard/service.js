// The connection to the service: one stream of events that mends itself, and requests with the key.

const KEY = "lemond-adapter.key";
const SILENCE_MS = 12_000; // the service says something every 5 s
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

const authorization = () => (key.get() ? { Authorization: `Bearer ${key.get()}` } : {});

/** A request to the service; its JSON. Throws an Error whose message is for people, with `status`. */
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      cache: "no-store",
      headers: { ...authorization(), ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch {
    throw new Error("the service cannot be reached");
  }
  const found = await answer.json().catch(() => null);
  if (answer.ok) return found;
  const problem = new Error(found?.error?.message || `the service answered ${answer.status}`);
  problem.status = answer.status;
  throw problem;
}

/** Server-sent events out of text that comes in pieces. */
export class Parser {
  #rest = "";
  #fields = {};

  constructor(take) {
    this.take = take;
  }

  feed(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") this.#dispatch();
      else if (!line.startsWith(":")) {
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        this.#fields[name] = name === "data" && "data" in this.#fields ? `${this.#fields.data}\n${value}` : value;
      }
    }
  }

  #dispatch() {
    const fields = this.#fields;
    this.#fields = {};
    if ("data" in fields) this.take(fields.event || "message", fields.data, fields.id);
  }
}

/**
 * Follows the events for as long as the page lives. `onEvent(type, data)` gets each one, `onLink(state,
 * why)` every change of the connection: connecting, live, lost, locked, paused. `onHeard()` is called
 * whenever something comes, a heartbeat at least.
 */
export class Stream {
  #lastId = null;
  #abort = null;
  #wake = null;
  #paused = false;

  constructor(path, onEvent, onLink, onHeard) {
    this.path = path;
    this.onEvent = onEvent;
    this.onLink = onLink;
    this.onHeard = onHeard;
  }

  async run() {
    let pause = FIRST_PAUSE_MS;
    for (;;) {
      if (this.#paused) {
        this.onLink("paused");
        await this.#waiting(null);
        continue;
      }
      let why = "the service ended the connection";
      try {
        const status = await this.#follow(() => (pause = FIRST_PAUSE_MS));
        if (status === 401) {
          this.onLink("locked", key.get() ? "That key was refused." : null);
          await this.#waiting(null);
          continue;
        }
        if (status !== 200) why = `the service answered ${status}`;
      } catch (problem) {
        why = problem.name === "AbortError" ? "the service has been silent" : "the service cannot be reached";
      }
      if (this.#paused) continue;
      this.onLink("lost", why);
      await this.#waiting(pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }

  /** Tries again at once. */
  retry() {
    this.#wake?.();
  }

  /** A page that nobody sees holds no connection: a browser has six for one service. */
  pause(on) {
    if (on === this.#paused) return;
    this.#paused = on;
    if (on) this.#abort?.abort();
    else this.#wake?.();
  }

  #waiting(ms) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (ms !== null) setTimeout(resolve, ms);
    });
  }

  async #follow(onLive) {
    const abort = (this.#abort = new AbortController());
    let watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const answer = await fetch(this.path, {
        cache: "no-store",
        signal: abort.signal,
        headers: { ...authorization(), ...(this.#lastId ? { "Last-Event-ID": this.#lastId } : {}) },
      });
      if (!answer.ok) return answer.status;
      const decoder = new TextDecoder();
      const parser = new Parser((type, data, id) => {
        if (id !== undefined) this.#lastId = id;
        this.onEvent(type, JSON.parse(data));
      });
      const reader = answer.body.getReader();
      for (let first = true; ; first = false) {
        const { done, value } = await reader.read();
        if (done) return answer.status;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
        parser.feed(decoder.decode(value, { stream: true }));
        this.onHeard();
        if (first) {
          onLive();
          this.onLink("live");
        }
      }
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  }
}
