"""Checks of a lemond and of what we can see of it: what, evidence, consequence, what to do."""

from __future__ import annotations

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.cli.doctor import contact, manners, processes, watch
from lemond_adapter.cli.doctor.finding import Finding, Grade
from lemond_adapter.cli.doctor.look import Look, look
from lemond_adapter.types import Known, SlotSpec

__all__ = ["Finding", "Grade", "Look", "examine", "findings"]


async def examine(
    url: str, api_key: str | None, *, admin_key: str | None = None, slots: tuple[SlotSpec, ...] = ()
) -> list[Finding]:
    """Looks at a lemond for a few seconds, without changing anything."""
    async with LemondAdapter(url, api_key=api_key, silence_s=5.0) as adapter:
        return findings(await look(adapter, admin_key=admin_key, slots=slots))


def findings(seen: Look) -> list[Finding]:
    """The checks, in the order in which one would mend things."""
    found = list(contact.always(seen))
    if not isinstance(seen.adapter.loaded(), Known):
        return found
    found += [
        contact.one_lemond(seen),
        contact.version(seen),
        contact.driver(seen),
        contact.drift(seen),
        watch.log_stream(seen),
        watch.log_level(seen),
        processes.children(seen),
        processes.identity(seen),
        processes.processes(seen),
        *manners.settings(seen),
        manners.threads(seen),
        watch.clock(seen),
    ]
    about_slots = manners.slots(seen)
    return found if about_slots is None else [*found, about_slots]
