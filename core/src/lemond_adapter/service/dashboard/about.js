// lemond and the driver that reads it; and the banners, which say what is wrong before anything else.

import { byId, el, nameOf, printable, setText } from "./dom.js";
import { clock } from "./words.js";

const MATCHES = {
  exact: ["good", "made for this release"],
  nearest: ["warn", "made for another release: the nearest there is"],
  generic: ["warn", "no driver knows this release: only its list and the processes are watched"],
};

export class About {
  constructor(store) {
    this.store = store;
    this.body = byId("about-body");
  }

  render() {
    const { status, known } = this.store;
    const { lemond } = status;
    if (!known || !lemond) {
      this.body.replaceChildren(el("p", { class: "muted", text: "Nothing is known yet." }));
      this.#line(null);
      return;
    }
    this.#line(lemond);
    const opened = new Set([...this.body.querySelectorAll("details[open]")].map((node) => node.dataset.name));
    this.body.replaceChildren(
      el("dl", { class: "about" }, ...this.#lemond(lemond), ...this.#driver(status), ...this.#stream(status), ...this.#budget(status), this.#others(), this.#kept(status)),
      ...this.#drift(status, opened));
  }

  #line(lemond) {
    const parts = [];
    if (lemond?.version) parts.push(`lemond ${printable(lemond.version)}`);
    if (lemond?.driver) parts.push(`driver ${printable(lemond.driver)}`);
    setText(byId("lemond-line"), parts.join(" · "));
  }

  #lemond(lemond) {
    const { store } = this;
    const live = store.link.state === "live";
    const words = !live ? ["off", "not known"] : lemond.reachable ? ["good", "answers"] : ["bad", "does not answer"];
    return [
      pair("lemond", badge(...words), lemond.version ? ` ${printable(lemond.version)}` : "", lemond.pid ? `, pid ${lemond.pid}` : ""),
      pair("At", el("span", { class: "url", text: printable(lemond.url) })),
      lemond.reachable ? null : pair("Why", printable(lemond.why || "it has not been reached yet")),
      lemond.since ? pair(lemond.reachable ? "Known since" : "Silent since", time(lemond.since)) : null,
      lemond.shared_port ? pair("Port", badge("bad", "shared by two lemonds")) : null,
    ];
  }

  #driver({ driver, lemond }) {
    const name = driver?.name ?? lemond.driver;
    if (!name) return [pair("Driver", "chosen once lemond has told its version")];
    const match = driver?.match ?? lemond.driver_match;
    const [tone, meaning] = MATCHES[match] || ["warn", ""];
    return [
      pair("Driver", nameOf(name), " ", badge(tone, match, meaning)),
      ...(driver?.notes || []).map((note) => pair("Note", printable(note))),
      ...(driver?.broken || []).map((broken) => pair("Broken driver", `${printable(broken.name)}: ${printable(broken.error)}`)),
    ];
  }

  #stream({ log_stream: log, native_events: native, processes }) {
    const found = [];
    if (native) {
      found.push(pair("Native events", native.connected ? badge("good", "connected") : badge("warn", "not connected"),
        ` seq ${native.last_seq ?? "–"}, ${native.reconnects} reconnects`));
    }
    if (log && !(native?.connected && !log.connected)) {
      const more = log.last_seq ? [`seq ${log.last_seq}`, `${log.reconnects} reconnects`, `${log.gaps} gaps`] : [];
      if (log.malformed_frames) more.push(`${log.malformed_frames} unreadable`);
      found.push(pair("Log stream", log.connected ? badge("good", "connected") : badge("warn", "not connected"), ` ${more.join(", ")}`));
      if (!log.connected && log.last_error) found.push(pair("Last error", printable(log.last_error)));
    }
    if (processes) {
      found.push(pair("Processes", processes.pids_visible === false ? badge("warn", "not visible", "what runs where cannot be proven") : `${processes.watched.length} watched`,
        processes.identity_mismatches_prevented ? `, ${processes.identity_mismatches_prevented} mix-ups prevented` : ""));
    }
    return found;
  }

  #budget({ control_requests: control }) {
    if (!control) return [];
    const { last_minute: used, budget_per_minute: budget, total } = control;
    const sum = Object.values(total).reduce((all, count) => all + count, 0);
    return [pair("Asked of lemond",
      el("meter", { min: 0, max: Math.max(budget * 2, used), high: budget + 0.5, optimum: 0, value: used, "aria-label": "Requests to lemond in the last minute" }),
      ` ${used} in the last minute (at rest: ${budget}), ${sum} in all`)];
  }

  /** Requests that belong to no slot: their names mean nothing here, or could not be read. */
  #others() {
    const others = this.store.traffic.get("");
    if (!others) return null;
    const counts = Object.entries(others.outcomes).map(([outcome, count]) => `${count} ${printable(outcome)}`);
    return pair("Not for a slot", counts.join(", "));
  }

  #kept({ journal }) {
    if (!journal?.problem && !journal?.lost) return null;
    return pair("Journal", badge("warn", "not on disk"), ` ${printable(journal.problem ?? `${journal.lost} rows lost`)}`);
  }

  #drift({ drift, problems }, opened) {
    const found = [];
    if (problems?.length) {
      found.push(el("ul", { class: "problems" }, ...problems.map((problem) => el("li", { text: printable(problem) }))));
    }
    if (!drift) return found;
    const { unknown_lifecycle_lines: lines, examples, unknown_health_keys: keys } = drift;
    if (!lines && !keys.length && !this.store.status.lemond.version) return found;
    if (!lines && !keys.length) {
      found.push(el("p", { class: "muted", text: "No drift: every lifecycle line and key of this lemond is known." }));
      return found;
    }
    found.push(el("details", { "data-name": "drift", open: opened.has("drift") },
      el("summary", {}, badge("warn", "drift"), ` ${lines} unknown lines, ${keys.length} unknown keys`),
      el("p", { class: "muted", text: "This lemond says things that the driver does not know. Nothing is guessed from them; a newer driver may know more." }),
      lines ? el("ul", { class: "examples" }, ...examples.map((line) => el("li", {}, el("code", { text: printable(line) })))) : null,
      keys.length ? el("p", {}, "Keys: ", el("code", { text: keys.map(printable).join(", ") })) : null));
    return found;
  }
}

/** Says at the top of the page what makes the rest of it doubtful. */
export function banners(store, retry) {
  const box = byId("banners");
  const { link, status, known } = store;
  const lemond = status.lemond;
  let banner = null;
  if (link.state === "lost") {
    const asOf = known ? ` What is shown was true at ${clock(store.truthAt)}, and may no longer be.` : "";
    banner = ["bad", "Disconnected", `${link.why}. Trying again.${asOf}`, el("button", { type: "button", text: "Try now", onclick: retry })];
  } else if (link.state === "paused") {
    banner = ["warn", "Paused", "This tab was hidden for a while; nothing is fetched for it.", null];
  } else if (known && link.state === "live" && lemond && !lemond.reachable) {
    const met = Boolean(lemond.version);
    banner = ["bad", met ? "lemond does not answer" : "lemond is missing",
      met
        ? `${lemond.why}. The slots show what was last known; those whose server still lives are served.`
        : `${lemond.why}.`,
      null];
  } else if (known && lemond?.shared_port) {
    banner = ["bad", "Two lemonds share one port", "Their answers alternate: stop one of them.", null];
  }
  const id = banner ? banner.slice(0, 3).join() : "";
  if (box.dataset.shown === id) return;
  box.dataset.shown = id;
  if (!banner) return box.replaceChildren();
  const [tone, title, text, button] = banner;
  return box.replaceChildren(el("div", { class: `banner ${tone}` },
    el("p", {}, el("strong", { text: title }), " ", el("span", { text: printable(text) })), button));
}

function pair(label, ...content) {
  return el("div", {}, el("dt", { text: label }), el("dd", {}, ...content));
}

function badge(tone, text, title) {
  return el("span", { class: `badge tone-${tone}`, text: printable(text), title });
}

function time(at) {
  const moment = Date.parse(at) / 1000;
  const ago = Date.now() / 1000 - moment;
  return el("time", { datetime: at, title: at, text: ago < 86_400 ? clock(moment) : new Date(moment * 1000).toLocaleString() });
}

