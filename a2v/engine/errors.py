"""The errors of a render. Their messages are shown to the clients that requested it."""

from __future__ import annotations

from a2v.errors import A2VError


class RenderError(A2VError):
    """The request can never be rendered; retrying does not help."""


class AudioError(RenderError):
    """The recording cannot be used: not fetchable, not audio, damaged, of an unsupported format, or too long."""


class FetchError(AudioError):
    """The file at a URL of a request cannot be fetched.

    Args:
        problem: The part of the message after the name of the field, such as ``": its server does not respond"``.

    Attributes:
        problem: That part of the message.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"audio_url{problem}")
        self.problem: str = problem


class RenderCrashedError(A2VError):
    """The renderer died without a result. This says nothing about the request, so retrying may help."""


class ResourceExhaustedError(A2VError):
    """The machine has run out of memory, disk space or another resource. The request is retried once the resource is available."""


class SpeechError(A2VError):
    """A text cannot be synthesized; the message says why, and what to do."""


class PortraitError(RenderError):
    """The picture cannot be used as a portrait: it is not a picture, is damaged, or does not show one clearly visible face."""
