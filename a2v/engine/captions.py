"""The captions of a video: a file beside it, a track of it, a part of the picture, or several of these.

``Captions`` says what they are made of: captions that the user has sent, or the words of a speech with their times. The engine writes it to
a file for the worker process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from a2v._core.captions import MAX_LINE_LENGTH, Cue, rewrap, segment
from a2v._values.models import Word
from a2v.engine.errors import RenderError
from a2v.engine.video_options import CaptionWay

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_BURNED_LINE_LENGTH = 32
"""Maximum number of characters in a line of burned-in captions, unless the picture is wider than it is high."""
_LATE = 0.5  # seconds


@frozen(kw_only=True)
class VideoCaptions:
    """What a video shows.

    Attributes:
        file: The captions of the file beside it; ``None``: there is none.
        track: The captions of its track; ``None``: it has none.
        language: The language of the track as files name it, if it is known.
        burned: The captions in the picture.
    """

    file: Sequence[Cue] | None
    track: Sequence[Cue] | None
    language: str | None
    burned: Sequence[Cue]


@frozen(kw_only=True)
class Captions:
    """The captions of one video.

    Attributes:
        ways: What becomes of them.
        cues: Captions that the user has made; empty: they are made of the words.
        words: The words of the recording.
        transcript: What is said in the recording, from which its words follow; ``None``: they are known.
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
        """Return the captions with the words of their transcript, if they have one.

        Args:
            pieces: Returns the samples of the recording, 16,000 per second.

        Raises:
            RenderError: The transcript is not that of the recording.
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
        """Return the captions of a video.

        Args:
            seconds: Its length.
            is_wide: Whether it is wider than it is high.

        Raises:
            RenderError: They belong to another recording.
        """
        whole = self._within(list(self.cues) or segment(self.words), seconds)
        max_length = MAX_LINE_LENGTH if is_wide else _MAX_BURNED_LINE_LENGTH
        burned = rewrap(whole, max_length) if self.cues else self._within(segment(self.words, max_length), seconds)
        return VideoCaptions(
            file=whole if "files" in self.ways else None,
            track=whole if "track" in self.ways else None,
            # The voices of the engine and transcripts are English.
            language=None if self.cues else "eng",
            burned=burned if "burned" in self.ways else [],
        )

    def _within(self, shown: list[Cue], seconds: float) -> list[Cue]:
        # Files have milliseconds, and readers refuse captions without a duration.
        kept = [
            evolve(cue, end=min(cue.end, seconds))
            for cue in shown
            if round(cue.start, 3) < round(min(cue.end, seconds), 3)
        ]
        if shown and (shown[-1].start > seconds + _LATE or not kept):
            raise RenderError(
                f"captions: one begins at {shown[-1].start:.1f} s, and the recording ends at {seconds:.1f} s: they are those of "
                "another recording"
            )
        return kept
