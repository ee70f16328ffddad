"""Why a connection ended or never came to be. Never raised to the core: reported through `down`."""

from __future__ import annotations

from typing import ClassVar

from lemond_adapter.types import LemondError


class LinkError(LemondError):
    """Base. `patient`: trying soon cannot help. `fresh`: the next connection asks for a new list."""

    patient: ClassVar[bool] = False
    fresh: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def problem(self) -> str:
        """The kind, for counters."""
        return type(self).__name__


class Unreachable(LinkError):
    """Nobody answered, or not in time, or not with HTTP."""


class Refused(LinkError):
    """lemond answered the handshake with an error status: a wrong key, an unknown path."""

    patient = True


class ProtocolMismatch(LinkError):
    """The hello names a protocol that this driver does not speak."""

    patient = True


class BadContent(LinkError):
    """A frame that carries state cannot be read, or contradicts the protocol: start from a list."""

    fresh = True


class SeqGap(LinkError):
    """An event is missing. lemond still has it, or will send a list."""


class HeartbeatMissed(LinkError):
    """Silence for longer than the hello promised."""


class Ended(LinkError):
    """The connection was closed, by lemond or by the network."""
