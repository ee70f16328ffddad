// Slot state is a fold over events: the same steps as the service takes (slots/fold.py), so that what is
// shown between two snapshots is what the service would show. Pure.

export const unseen = (model) => ({
  model, state: "offline", port: null, pid: null, generation: 0, loads: 0, message: "", changedAt: null,
});

export const emptyView = () => ({ models: new Map(), stale: false, seq: 0 });

/** The view after one more event; changed in place. An event that is not newer changes nothing. */
export function fold(view, event) {
  if (event.seq <= view.seq) return view;
  view.seq = event.seq;
  if (event.type === "lemond_lost") view.stale = true;
  else if (event.type === "resynced") view.stale = false;
  else if (event.model !== null) {
    const before = view.models.get(event.model) || unseen(event.model);
    view.models.set(event.model, { ...step(before, event), changedAt: Date.parse(event.at) / 1000 });
  }
  return view;
}

/** One model after one event. */
export function step(view, event) {
  const gone = { ...view, state: "offline", port: null, pid: null };
  switch (event.type) {
    case "pull_started":
    case "pull_progress":
    case "pull_finished": return pulled(view, event);
    case "load_started": return { ...view, state: "starting", port: null, pid: null, message: "lemond is loading it" };
    case "process_spawned": return { ...gone, state: "warming", pid: event.pid, message: "its server is starting" };
    case "model_loaded": return loaded(view, event);
    case "port_changed": {
      const moved = { ...view, generation: view.generation + 1 };
      return view.state === "ready" ? { ...moved, port: event.new_port, pid: event.pid } : moved;
    }
    case "load_failed": return { ...gone, state: "error", message: event.reason };
    case "eviction_started": return { ...view, state: "unloading", message: `being evicted (${event.reason})` };
    case "model_evicted": return { ...gone, message: `evicted (${event.reason}); loads again on the next request` };
    case "process_crashed":
      return { ...gone, message: `its server died (${event.exit || "no exit status"}); loads again on the next request` };
    default: return view;
  }
}

/** A download says nothing of a process: what is loaded stays so while it is updated. */
function pulled(view, event) {
  if (!["offline", "error", "pulling"].includes(view.state)) return view;
  if (event.type === "pull_started") return { ...view, state: "pulling", message: "downloading" };
  if (event.type === "pull_progress") {
    return { ...view, state: "pulling", message: `downloading, ${event.percent.toFixed(0)} %` };
  }
  return { ...view, state: "offline", message: event.ok ? "" : `download failed: ${event.reason}` };
}

/** An eviction that was called off gives the same process back: no other generation, no other load. */
function loaded(view, event) {
  const same = view.state === "unloading" && view.port === event.port && view.pid === event.pid;
  const more = same ? 0 : 1;
  return {
    ...view, state: "ready", port: event.port, pid: event.pid,
    generation: view.generation + more, loads: view.loads + more, message: "",
  };
}
