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
        problem: What is wrong, as it follows the name of the field: ``": its server does not respond"``.

    Attributes:
        problem: The same.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"audio_url{problem}")
        self.problem: str = problem


class RenderCrashedError(A2VError):
    """The renderer died without a result. This says nothing about the request, so retrying may help."""


class ResourceExhaustedError(A2VError):
    """The machine has run out of memory, disk space, processes or the like. The request is retried when it has them."""


class SpeechError(A2VError):
    """A text cannot be synthesized; the message says why, and what to do."""


class PortraitError(RenderError):
    """The picture cannot become a portrait: not a picture, damaged, or without one clearly visible face."""
