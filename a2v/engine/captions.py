"""The captions of a video: a file beside it, a subtitle track, text burned into the picture, or several of these.

``Captions`` is their source: cues that the client has sent, a transcript, or the words of a speech with their times. The engine writes it
to a file for the worker process. There the words of a transcript are aligned with the recording, and ``of_video`` turns cues or words into
``VideoCaptions``, the cues of each form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from a2v._core.captions import FILES, MAX_LINE_LENGTH, Cue, rewrap, segment
from a2v._values.models import Word
from a2v.engine.errors import RenderError
from a2v.engine.video_options import CaptionWay

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_NARROW_LINE_LENGTH = 32
"""The maximum number of characters in a line that is burned into a square or portrait video."""
_MAX_LATE_SECONDS = 0.5
"""How long after the end of the recording the last cue may begin; if it begins later, the captions belong to another recording."""


@frozen(kw_only=True)
class VideoCaptions:
    """The cues of one video, none of which ends after the video.

    Attributes:
        file: The cues of the file beside the video; ``None``: no file.
        track: The cues of the subtitle track; ``None``: no track.
        language: The ISO 639-2 code of the track's language; ``None`` if it is unknown.
        burned: The cues that are drawn into the picture.
    """

    file: Sequence[Cue] | None
    track: Sequence[Cue] | None
    language: str | None
    burned: Sequence[Cue]


@frozen(kw_only=True)
class Captions:
    """The source of the captions of one video.

    Attributes:
        ways: Where the captions appear.
        cues: The cues that the client has sent; empty: the captions are made from the words.
        words: The words of the recording, with their times.
        transcript: The text that is spoken in the recording; ``aligned`` replaces it by words with times. ``None``: no transcript.
    """

    ways: Sequence[CaptionWay]
    cues: Sequence[Cue] = ()
    words: Sequence[Word] = ()
    transcript: str | None = None

    def dump(self) -> bytes:
        """Return the captions as the content of a file."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, content: bytes) -> Captions:
        """Read the content of a file."""
        data: dict[str, Any] = json.loads(content)
        return cls(
            ways=data["ways"],
            cues=[Cue(**cue) for cue in data["cues"]],
            words=[Word(**word) for word in data["words"]],
            transcript=data["transcript"],
        )

    def aligned(self, pieces: Callable[[], Iterable[NDArray[np.float32]]]) -> Captions:
        """Return the captions with a time for each word of the transcript; unchanged without a transcript.

        Args:
            pieces: Returns the samples of the recording, 16,000 per second.

        Raises:
            RenderError: The transcript does not match the recording, or the extra ``transcripts`` is not installed.
        """
        if self.transcript is None:
            return self
        from a2v.engine.alignment import align, check_installed  # noqa: PLC0415  # an extra

        try:
            check_installed()
        except ImportError as error:
            raise RenderError(str(error)) from None
        return evolve(self, words=align(self.transcript, pieces()), transcript=None)

    def of_video(self, seconds: float, *, is_wide: bool) -> VideoCaptions:
        """Return the cues of a video.

        Args:
            seconds: The length of the video.
            is_wide: Whether it is wider than it is high.

        Raises:
            RenderError: The captions belong to another recording.
        """
        full_width = _cut_at_end(list(self.cues) or segment(self.words), seconds)
        max_length = MAX_LINE_LENGTH if is_wide else _MAX_NARROW_LINE_LENGTH
        narrow = rewrap(full_width, max_length) if self.cues else _cut_at_end(segment(self.words, max_length), seconds)
        return VideoCaptions(
            file=full_width if FILES in self.ways else None,
            track=full_width if "track" in self.ways else None,
            # The engine's voices speak English, and transcripts are in English.
            language=None if self.cues else "eng",
            burned=narrow if "burned" in self.ways else [],
        )


def _cut_at_end(uncut: list[Cue], seconds: float) -> list[Cue]:
    """Cut cues off at the end of a video.

    Raises:
        RenderError: They belong to another recording.
    """
    # Files have milliseconds, and readers reject cues without a duration.
    cut = [
        evolve(cue, end=min(cue.end, seconds)) for cue in uncut if round(cue.start, 3) < round(min(cue.end, seconds), 3)
    ]
    if uncut and (uncut[-1].start > seconds + _MAX_LATE_SECONDS or not cut):
        raise RenderError(
            f"captions: the last one begins at {uncut[-1].start:.1f} s, but the recording ends at {seconds:.1f} s: "
            "the captions belong to another recording"
        )
    return cut
