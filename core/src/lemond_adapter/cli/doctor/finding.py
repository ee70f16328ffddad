"""One check's outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

LATER = "evictions are noticed by the next listing, up to 30 s later, where processes are not visible"
"""What follows where the watch is blind."""

Grade = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` is the finding in one line, `evidence` what was seen, `consequence` what follows from it for
    clients, `fix` what to do. The last two are empty when all is well."""

    check: str
    grade: Grade
    what: str
    evidence: str = ""
    consequence: str = ""
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """Always the same keys, all of them strings."""
        return asdict(self)


def ok(check: str, what: str, evidence: str = "") -> Finding:
    """All is well."""
    return Finding(check, "ok", what, evidence)
