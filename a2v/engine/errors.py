"""What can go wrong with a render, in sentences that are fit for those who asked for it."""

from __future__ import annotations

from a2v.errors import A2VError


class RenderError(A2VError):
    """This request cannot be rendered, however often it is tried."""


class AudioError(RenderError):
    """The audio cannot be used: not a recording, damaged, of an unknown kind, too long."""


class RenderCrashedError(A2VError):
    """The renderer ended without a verdict. That says nothing about the request, which may be tried again."""


class ResourceExhaustedError(A2VError):
    """The machine lacks something just now: memory, disk space, processes. The request is rendered when that is over."""
