"""The children: can they be reached, are they who they should be, would their end be seen."""

from __future__ import annotations

from lemond_adapter.cli.doctor.finding import Finding, ok
from lemond_adapter.cli.doctor.look import Look


def children(look: Look) -> Finding:
    """Whether the listed children can be talked to from here."""
    address = look.adapter.address
    if not address.local:
        return Finding(
            "children",
            "warning",
            "lemond is on another host: its children are not reachable from here",
            f"{address.host} is not this host's loopback, where children listen",
            "all model traffic goes through lemond (about 50 ms a call, 8 connections to 10.10), whose own "
            "evictions do not spare it",
            "run the adapter on lemond's host, in its network and pid namespace",
        )
    if not look.children:
        return ok("children", "none is loaded; whether they can be reached is not known")
    away = [child for child in look.children if child.refused is not None and child.pid_state != "dead"]
    if away:
        return Finding(
            "children",
            "problem",
            "children are not reachable from here",
            "; ".join(f"{c.entry.model}: port {c.entry.port}: {c.refused}" for c in away)[:400],
            "their requests get 503 although lemond says that they are loaded",
            "run the adapter in lemond's network namespace (on the host itself, or "
            "network_mode: 'service:lemond' in compose)",
        )
    dead = [child for child in look.children if child.pid_state == "dead"]
    if dead:
        return Finding(
            "children",
            "warning",
            "lemond lists models whose process is dead",
            "; ".join(f"{c.entry.model}: pid {c.entry.pid}" for c in dead)[:400],
            "through lemond they fail until somebody unloads them (to 10.7 it never notices)",
            "ask the adapter for the model: it unloads it and loads it again",
        )
    return ok("children", f"{len(look.children)} listed, all of them answer on their ports")


def identity(look: Look) -> Finding:
    """Whether the listed processes are those that listen on the listed ports."""
    wrong = [child for child in look.children if child.owns_port is False and child.refused is None]
    if wrong:
        return Finding(
            "identity",
            "problem",
            "a listed port belongs to another process",
            "; ".join(f"{c.entry.model}: port {c.entry.port} is not pid {c.entry.pid}'s" for c in wrong)[
                :400
            ],
            "the adapter does not route there; through lemond another model or program would answer",
            "find who listens there (ss -ltnp), stop it, then unload the model and load it again",
        )
    if not look.children:
        return ok("identity", "nothing to check")
    return ok("identity", "no listed port was found to be another process's")


def processes(look: Look) -> Finding:
    """Whether the ends of processes would be seen at once."""
    late = "identity is unproven; a crash is seen when a connection fails"
    if not look.adapter.address.local:
        return Finding(
            "processes",
            "warning",
            "processes of another host cannot be watched",
            f"lemond is at {look.adapter.address.url}",
            late,
            "run the adapter on lemond's host",
        )
    hidden = [child for child in look.children if child.pid_state == "not here"]
    if hidden:
        return Finding(
            "processes",
            "warning",
            "children are not visible as processes from here",
            "; ".join(f"{c.entry.model}: no process has pid {c.entry.pid}" for c in hidden)[:400],
            late,
            "run the adapter in lemond's pid namespace (pid: 'service:lemond' in compose, or pid: host)",
        )
    if not look.adapter.truth.witness.processes.works:
        what = "this system has no pidfds (Linux 5.3 and later)"
        return Finding("processes", "warning", what, "pidfd_open failed", late, "use a newer kernel")
    if look.children:
        return ok("processes", f"{len(look.children)} children are visible: their end is known at once")
    if look.lemond_visible:
        return ok("processes", "lemond's own process is visible; no child is loaded")
    return ok("processes", "no child is loaded; whether their pids are visible is not known")
