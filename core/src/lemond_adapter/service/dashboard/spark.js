// Small charts: a quarter of an hour of one slot's traffic in one number each.

import { el, setAttr, setText, svg } from "./dom.js";
import { millis, short } from "./words.js";

const HEIGHT = 22;

// What each chart draws of a bucket, and what it says beside it.
const CHARTS = [
  { key: "rate", label: "Requests/s", kind: "bars", of: (bucket, width) => bucket.requests / width, say: sayRate },
  { key: "errors", label: "Errors", kind: "bars", of: (bucket) => bucket.errors, say: saySum },
  { key: "retries", label: "Retry-After", kind: "bars", of: (bucket) => bucket.retries, say: sayRetries },
  { key: "ttft", label: "TTFT", kind: "line", of: (bucket) => bucket.ttft_ms ?? null, say: (points) => sayLast(points, millis) },
  { key: "tokens", label: "Tokens/s", kind: "line", of: (bucket) => bucket.tokens_per_s ?? null, say: (points) => sayLast(points, short) },
];

function sayRate(points) {
  // The bucket that is still filling says too little; the one before it counts as well.
  const recent = points.slice(-2).map(({ value }) => value);
  const rate = Math.max(0, ...recent);
  return rate ? short(rate) : "0";
}

function saySum(points) {
  return short(points.reduce((sum, { value }) => sum + value, 0));
}

function sayRetries(points, traffic) {
  const count = points.reduce((sum, { value }) => sum + value, 0);
  if (!count || traffic.retry_after_s === undefined) return short(count);
  return `${short(count)} × (${Math.max(1, Math.ceil(traffic.retry_after_s))} s)`; // as the header says it
}

function sayLast(points, write) {
  const measured = points.filter(({ value }) => value !== null);
  return measured.length ? write(measured.at(-1).value) : "–";
}

/** The charts of one slot. `draw(traffic, now, bucketS, count)` brings them up to date. */
export function charts(name) {
  const tiles = CHARTS.map((chart) => {
    const value = el("span", { class: "spark-value", text: "–" });
    const path = svg("path", { class: `spark-${chart.kind}` });
    const picture = svg("svg", { class: "spark", "aria-hidden": "true", preserveAspectRatio: "none" }, path);
    const tile = el("div", { class: `tile tile-${chart.key}` },
      el("dt", { text: chart.label }), el("dd", {}, value, picture));
    return { chart, tile, value, path, picture };
  });
  const quiet = el("p", { class: "muted quiet-line", text: "No requests in the last 15 minutes" });
  const list = el("dl", { class: "tiles", hidden: true, "aria-label": `Traffic of ${name}` },
    ...tiles.map(({ tile }) => tile));
  return { node: el("div", { class: "traffic" }, quiet, list), draw };

  function draw(traffic, now, bucketS, count) {
    const first = (Math.floor(now / bucketS) - count + 1) * bucketS;
    const buckets = traffic ? [...traffic.buckets.values()].filter(({ start }) => start >= first) : [];
    setAttr(quiet, "hidden", buckets.length ? "" : null);
    setAttr(list, "hidden", buckets.length ? null : "");
    if (!buckets.length) return;
    const last = Math.floor(now / bucketS) * bucketS;
    for (const { chart, tile, value, path, picture } of tiles) {
      const points = buckets.map((bucket) => ({ at: (bucket.start - first) / bucketS, value: chart.of(bucket, bucketS) }));
      const recent = chart.key === "rate" ? points.filter((_, index) => buckets[index].start >= last - bucketS) : points;
      setText(value, chart.say(recent, traffic));
      setAttr(picture, "viewBox", `0 0 ${count} ${HEIGHT}`);
      setAttr(path, "d", chart.kind === "bars" ? bars(points) : line(points));
      setAttr(tile, "data-any", points.some((point) => point.value) ? "" : null);
    }
  }
}

function bars(points) {
  const top = Math.max(...points.map(({ value }) => value));
  if (!top) return "";
  return points
    .filter(({ value }) => value)
    .map(({ at, value }) => {
      const height = Math.max(1.5, (value / top) * (HEIGHT - 2));
      return `M${at} ${HEIGHT}v${-height.toFixed(1)}h0.9v${height.toFixed(1)}z`;
    })
    .join("");
}

function line(points) {
  const measured = points.filter(({ value }) => value !== null);
  const top = Math.max(...measured.map(({ value }) => value), 0);
  if (!top) return "";
  let path = "";
  let before = null;
  for (const { at, value } of measured) {
    const y = (HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(1);
    // Where nothing was measured for half a minute there is no line, only dots at its ends.
    path += before !== null && at - before <= 3 ? `L${at + 0.5} ${y}` : `M${at} ${y}h1`;
    before = at;
  }
  return path;
}
