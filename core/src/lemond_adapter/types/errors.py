"""The errors of lemond-adapter.

LemondError                     everything below
 +- LemondUnavailable           lemond cannot be reached (refused, reset, DNS)
 +- LemondTimeout               lemond did not answer in time; says nothing about its children
 +- LemondHTTPError             lemond answered with an error status
 |   +- LoadError               a load was refused or failed, with lemond's own reason
 +- MalformedPayload            lemond (or what answers in its place) sent what no driver can read
 +- UnsupportedVersion          the version string is not one a driver can be chosen for
 +- SlotLoading                 not routable now; try again after `retry_after_s`
 +- SlotFailed                  its load failed for good; back-off in `retry_after_s`
 +- ModelNotFound               neither a slot nor a model lemond knows
 +- DriverError                 an installed driver cannot be used
 +- ConfigError                 the configuration is refused: file, key, what was expected
 +- CaptureError                a capture file is malformed: file and line

Each class knows the HTTP `status` and the `code` it becomes on the data plane.
"""

from __future__ import annotations

from typing import ClassVar


class LemondError(Exception):
    """Base of every error this package raises on purpose."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "lemonade.error"


class LemondUnavailable(LemondError):
    """lemond cannot be reached. Says nothing about the children: do not mark slots errored."""

    code = "lemonade.unavailable"


class LemondTimeout(LemondError):
    """lemond accepted the call and did not answer within the limit."""

    code = "lemonade.timeout"


class LemondHTTPError(LemondError):
    """lemond answered with an error status. `body` is its text, at most 2000 characters."""

    code = "lemonade.http_error"

    def __init__(self, message: str, *, status_code: int, body: str = "") -> None:
        super().__init__(message)
        self.status_code = status_code
        self.body = body[:2000]


class LoadError(LemondHTTPError):
    """A load was refused or failed. `kind` as in the `load_failed` event, `reason` lemond's text."""

    code = "slot.error"

    def __init__(self, message: str, *, status_code: int, body: str = "", kind: str = "unknown") -> None:
        super().__init__(message, status_code=status_code, body=body)
        self.kind = kind
        self.reason = message


class MalformedPayload(LemondError):
    """What answered is not lemond, or speaks a shape that no installed driver can read."""

    code = "lemonade.malformed"


class UnsupportedVersion(LemondError):
    """The reported version is not a version of lemond."""

    code = "lemonade.unsupported_version"


class SlotLoading(LemondError):
    """The model is known but not routable now. `retry_after_s` is the predicted wait, in seconds."""

    code = "slot.loading"

    def __init__(
        self,
        message: str,
        *,
        model: str,
        state: str,
        retry_after_s: float,
        slot: str | None = None,
        eta_s: float | None = None,
        queue_position: int | None = None,
        phase: str | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.slot = slot
        self.state = state
        self.retry_after_s = retry_after_s
        self.eta_s = eta_s
        self.queue_position = queue_position
        self.phase = phase or state


class SlotFailed(LemondError):
    """The last load failed and its back-off is not over. The message carries lemond's reason."""

    code = "slot.error"

    def __init__(
        self, message: str, *, model: str, retry_after_s: float, kind: str, slot: str | None = None
    ) -> None:
        super().__init__(message)
        self.model = model
        self.slot = slot
        self.retry_after_s = retry_after_s
        self.kind = kind


class ModelNotFound(LemondError):
    """Neither a slot, an alias nor a model in lemond's catalogue."""

    status = 404
    code = "model.not_found"


class DriverError(LemondError):
    """An installed driver cannot be used; the message names it, its distribution and the reason."""

    code = "driver.broken"


class ConfigError(LemondError):
    """The configuration is refused. The message names the file, the key and what was expected."""

    code = "config.invalid"


class CaptureError(LemondError):
    """A capture file is malformed. The message names the file and the line."""

    code = "capture.malformed"
