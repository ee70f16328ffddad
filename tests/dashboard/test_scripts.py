"""The page's own scripts, run where they run: in the browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 6, 2, 10, 0, 0, tzinfo=UTC)

LANES = """
const [events, complete, done] = arguments;
import("/dashboard/lanes.js").then(({ lanesOf }) => {
  const { lanes, unloads, stale, dark, begin } = lanesOf(events, complete);
  const since = (at) => at === null ? null : Math.round((at - begin) * 10) / 10;
  done({
    lanes: Object.fromEntries([...lanes].map(([model, segments]) =>
      [model, segments.map(({ from, to, state }) => [state, since(from), since(to)])])),
    unloads: unloads.map(({ model, at, end, reason, by }) => [model, since(at), since(end), reason, by]),
    stale: stale.map((span) => span.map(since)),
    dark: dark.map((span) => span.map(since)),
  });
}, (problem) => done(String(problem)));
"""

PARSER = """
const [text, size, done] = arguments;
import("/dashboard/service.js").then(({ Parser }) => {
  const found = [];
  const parser = new Parser((type, data, id) => found.push([type, data, id ?? null]));
  for (let at = 0; at < text.length; at += size) parser.feed(text.slice(at, at + size));
  done(found);
}, (problem) => done(String(problem)));
"""


class Told:
    """Events in the order of their telling, some seconds apart."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._seq = 0
        self._at = 0.0

    def __call__(self, type: str, model: str | None = None, /, after: float = 1.0, **more: Any) -> Told:
        self._seq += 1
        self._at += after if self.events else 0.0
        moment = (BEGIN + timedelta(seconds=self._at)).isoformat(timespec="milliseconds")
        at = moment.replace("+00:00", "Z")
        self.events.append({"seq": self._seq, "at": at, "type": type, "model": model, "slot": None, **more})
        return self

    def loaded(self, model: str) -> Told:
        self("load_started", model)
        return self("process_spawned", model, pid=5)("model_loaded", model, pid=5, port=8001)

    def evicted(self, model: str, reason: str) -> Told:
        return self("eviction_started", model, reason=reason)("model_evicted", model, reason=reason)

    def another_run(self, after: float) -> Told:
        """The service starts again; its seqs begin far behind those of the last run."""
        self._seq += 10_000
        return self("lemond_started", after=after)


async def test_a_load_and_its_end(scripts: Any) -> None:
    told = Told()("resynced").loaded("a").evicted("a", "idle")("process_crashed", "b", pid=3)
    found = await scripts(LANES, told.events, True)
    assert found["lanes"]["a"] == [
        ["starting", 1, 2],
        ["warming", 2, 3],
        ["ready", 3, 4],
        ["unloading", 4, 5],
        ["offline", 5, None],
    ]
    assert found["unloads"] == [["a", 4, 5, "idle", None], ["b", 6, 6, None, None]]


async def test_who_made_room_for_whom(scripts: Any) -> None:
    # lemond evicts while it loads the other; the adapter evicts before; a manual unload blames nobody.
    told = Told().loaded("a")("load_started", "b").evicted("a", "lru")("process_spawned", "b", pid=6)
    told("model_loaded", "b", pid=6, port=8002)
    told.evicted("b", "lru").loaded("c")
    told.evicted("c", "manual").loaded("d")
    found = await scripts(LANES, told.events, True)
    assert [(row[0], row[3], row[4]) for row in found["unloads"]] == [
        ("a", "lru", "b"),
        ("b", "lru", "c"),
        ("c", "manual", None),
    ]


async def test_a_failed_load_is_to_blame_for_all_that_it_took_along(scripts: Any) -> None:
    told = Told().loaded("a").loaded("b")("load_started", "x")
    told("load_failed", "x", reason="exit 1", kind="backend_exit")
    told.evicted("a", "load_failure_cascade").evicted("b", "load_failure_cascade")
    found = await scripts(LANES, told.events, True)
    assert [(row[0], row[4]) for row in found["unloads"]] == [("x", None), ("a", "x"), ("b", "x")]


async def test_an_old_eviction_is_not_blamed_on_a_load_much_later(scripts: Any) -> None:
    told = Told().loaded("a").evicted("a", "lru")("load_started", "b", after=60)
    assert (await scripts(LANES, told.events, True))["unloads"][0][4] is None


async def test_where_nobody_watched_nothing_is_claimed(scripts: Any) -> None:
    told = Told().loaded("a").another_run(after=100).loaded("b")
    found = await scripts(LANES, told.events, True)
    assert found["dark"] == [[2, 102]]
    assert found["lanes"]["a"][-1] == ["ready", 2, 2], "it is claimed to have been ready meanwhile"
    assert found["lanes"]["b"][-1] == ["ready", 105, None]


async def test_what_came_before_the_first_event_that_is_left(scripts: Any) -> None:
    told = Told()("resynced").evicted("a", "idle")("load_started", "b")
    found = await scripts(LANES, told.events, False)
    assert found["lanes"]["a"][0] == ["ready", 0, 1]
    assert found["lanes"]["b"][0] == ["offline", 0, 3]
    # Where the journal begins with the service, there was nothing before.
    assert (await scripts(LANES, told.events, True))["lanes"]["b"][0] == ["starting", 3, None]


async def test_silence_is_a_span_and_one_span(scripts: Any) -> None:
    told = Told().loaded("a")("lemond_lost", reason="x")("lemond_lost", reason="y")("resynced")("lemond_lost")
    assert (await scripts(LANES, told.events, True))["stale"] == [[3, 5], [6, None]]


async def test_the_stream_is_read_in_whatever_pieces_it_comes(scripts: Any) -> None:
    text = (
        ": hello\n\nid: e:1\nevent: snapshot\ndata: {}\n\n"
        ": heartbeat\n\nevent: traffic\r\ndata: a\r\ndata: b\r\n\r\n"
        "data\n\nevent: lost, no data\n\nid: e:2\nevent: x\ndata:  two spaces: kept\n\ndata: unfinished\n"
    )
    expected = [
        ["snapshot", "{}", "e:1"],
        ["traffic", "a\nb", None],
        ["message", "", None],
        ["x", " two spaces: kept", "e:2"],
    ]
    for size in (1, 2, 3, 7, 1000):
        assert await scripts(PARSER, text, size) == expected, f"in pieces of {size}"
