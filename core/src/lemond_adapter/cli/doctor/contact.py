"""lemond itself: does it answer, to us, as one, in a version that a driver reads."""

from __future__ import annotations

from collections.abc import Iterator

from lemond_adapter.cli.doctor.finding import LATER, Finding, ok
from lemond_adapter.cli.doctor.look import Look
from lemond_adapter.drivers.versions import parse_release
from lemond_adapter.types import UnsupportedVersion


def always(look: Look) -> Iterator[Finding]:
    """Checks that need no answer of lemond's."""
    yield _reachable(look)
    yield _auth(look)
    for broken in look.adapter.installed.broken:
        yield Finding(
            "driver wheels",
            "problem",
            f"{broken.name} cannot be used",
            f"{broken.origin}: {broken.error}",
            "the releases it serves are read by the nearest other driver",
            "reinstall or remove that distribution",
        )


def _reachable(look: Look) -> Finding:
    adapter, url = look.adapter, look.adapter.address.url
    why = adapter.truth.unknown_why
    if why is None:
        return ok("reachable", f"lemond {adapter.version} answers at {url}")
    if "API key" in why:
        return ok("reachable", f"a server answers at {url}", why)
    consequence = "loaded models are served as long as their processes live; nothing can be loaded"
    if "silent" in why and look.answers_live:
        what = "lemond's HTTP server lives, its health does not answer"
        fix = "it blocks while an eviction waits for the victim's requests; if that lasts, restart lemond"
    elif "silent" in why:
        what = "lemond takes connections and answers nothing: it hangs, or all of its threads are taken"
        fix = "send model traffic to the adapter, not to lemond (8 threads to 10.10); if it lasts, restart it"
    elif "JSON" in why or "status 404" in why:
        what = "the server that answers there is not lemond"
        consequence = "nothing can be routed"
        fix = "name lemond's own port with --lemond (13305 by default), not that of a web server before it"
    else:
        what = f"nothing answers at {url}"
        fix = "start lemond, or name it with --lemond"
    return Finding("reachable", "problem", what, why, consequence, fix)


def _auth(look: Look) -> Finding:
    why = look.adapter.truth.unknown_why
    if why is None or "API key" not in why:
        return ok("auth", "lemond takes the key that was given" if look.key_given else "no key was given")
    if look.key_given:
        what = "lemond refuses the key that was given"
        fix = "set LEMONADE_API_KEY here to the value in lemond's environment (/etc/lemonade/conf.d/*.conf)"
    else:
        what = "lemond wants an API key, and none was given"
        fix = "set LEMONADE_API_KEY to lemond's key in the environment of the adapter"
    return Finding("auth", "problem", what, why, "nothing is known of lemond: every request gets 503", fix)


def one_lemond(look: Look) -> Finding:
    """Whether a single lemond answers."""
    truth = look.adapter.truth
    if not truth.neighbour.shared:
        return ok("one lemond", "the same lemond answers each time")
    told = [problem for problem in truth.reading.problems if "two lemonds" in problem]
    return Finding(
        "one lemond",
        "problem",
        "two lemonds share the port",
        "; ".join(told),
        "loads reach either of them, and half of the answers are the other one's",
        "stop one of them (ss -ltnp shows both)",
    )


def version(look: Look) -> Finding:
    """Whether health reports a version that means something."""
    selection = look.adapter.selection
    reported = selection.version if selection else None
    try:
        parse_release(reported)
    except UnsupportedVersion as error:
        return Finding(
            "version",
            "warning",
            "health reports no usable version",
            str(error),
            f"the generic driver is used: {LATER}",
            "check that --lemond names lemond itself, not Ollama or a proxy",
        )
    return ok("version", f"lemond {reported}")


def driver(look: Look) -> Finding:
    """How well the driver fits."""
    selection = look.adapter.selection
    assert selection is not None
    text = f"{selection.driver.name} ({selection.match}) reads lemond {selection.version}"
    if selection.match == "exact":
        return ok("driver", text, "; ".join(selection.notes))
    return Finding(
        "driver",
        "warning",
        text,
        "; ".join(selection.notes),
        f"log lines that are new in this release are not understood: {LATER}; never a wrong route",
        "install the driver wheel of this release (lemond-adapter drivers lists those installed)",
    )


def drift(look: Look) -> Finding:
    """Lines and keys that the driver does not know."""
    lines, keys = look.adapter.truth.unknown_lines, look.adapter.truth.reading.unknown_keys
    if not lines and not keys:
        return ok("drift", "every lifecycle line and health key is known to the driver")
    examples = [*(f"line {line!r}" for line, _ in lines.most_common(3)), *(f"key {key}" for key in keys)]
    return Finding(
        "drift",
        "warning",
        f"{len(lines)} lines and {len(keys)} keys are not known to the driver",
        ", ".join(examples)[:400],
        "what such a line tells is learned from the listing instead, later",
        "record it with 'lemond-adapter capture' and open a pull request with the capture",
    )
