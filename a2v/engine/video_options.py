"""The options of a video: the engine's own fields of ``video.generate``, which the protocol does not have. All checks are here.

A task stores the options of its request. The options that the request leaves out come from the settings that the engine has when it
renders the video.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import frozen

from a2v._core.captions import MAX_CHARACTERS, Cue, asks_for_files, read_captions
from a2v.engine.errors import AudioError
from a2v.engine.face_pose import Mood
from a2v.engine.settings import FRAME_RATES, SIZES, Format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2v.engine.settings import Settings
    from a2v.engine.task_store import Task

Container = Literal["mp4", "webm", "mov", "webp", "gif"]
TRANSPARENT, OWN = "transparent", "character"
"""Values of ``background``: no background, and the character's own."""
WITH_ALPHA: tuple[Container, ...] = ("webm", "mov", "webp")
"""The containers that can be transparent."""
WITH_MASK: Container = "mp4"
"""The container of a video with a mask."""
ANIMATIONS: tuple[Container, ...] = ("webp", "gif")
"""The containers that are animated pictures: short, and without sound."""
MAX_ANIMATION_SECONDS = 30.0
MAX_GIF_FPS = 50
"""The highest frame rate of a GIF: browsers show faster ones slowly."""
COLOUR = r"#[0-9A-Fa-f]{6}"
"""The form of a colour."""
CaptionWay = Literal["files", "track", "burned"]
"""Where captions appear: in a file beside the video, in a subtitle track, which players can show or hide, or burned into the picture."""
WITH_TRACK: tuple[Container, ...] = ("mp4", "webm", "mov")
"""The containers that can have a subtitle track."""
_KEYS = ("size", "format", "fps", "container", "background", "captions", "captions_file", "transcript", "mood")

CAPTIONS = "vtt"
"""The extension of a file of captions: the engine writes WebVTT."""
VIDEO_EXTENSIONS = (*(f".{container}" for container in get_args(Container)), ".mask.mp4", f".{CAPTIONS}")
"""The extensions of a task's files in the data folder."""


def container_of(task: Task) -> Container:
    """Return the container of a task's video."""
    container: Container = task.options.get("container", "mp4")
    return container if container in get_args(Container) else "mp4"


def has_captions_file(task: Task) -> bool:
    """Return whether a task makes a file with the captions of its video."""
    return asks_for_files(task.options)


@frozen(kw_only=True)
class VideoOptions:
    """How a video is made.

    Attributes:
        size: The shorter side in pixels.
        format: The shape.
        fps: Frames per second.
        container: The format of the file.
        background: ``"character"``, ``"transparent"``, a colour such as ``"#203040"``, or the URL of a picture.
        mood: The expression of the character; ``None``: the voice determines it.
        captions: Where the captions appear; empty: there are none.
        cues: The cues of the job's ``captions_file``; empty: the captions are made from the transcript or from the words of the speech.
        transcript: The text that is spoken in the recording; ``None``: no transcript.
    """

    size: int
    format: Format
    fps: int
    container: Container
    background: str
    mood: Mood | None = None
    captions: Sequence[CaptionWay] = ()
    cues: Sequence[Cue] = ()
    transcript: str | None = None

    @property
    def background_url(self) -> str | None:
        """The URL of the picture, if the background is one."""
        is_url = self.background not in (OWN, TRANSPARENT) and not re.fullmatch(COLOUR, self.background)
        return self.background if is_url else None


def read_options(given: Mapping[str, Any], settings: Settings, *, with_mask: bool) -> VideoOptions:
    """Check the options of a job, and complete them with the settings.

    Args:
        given: The options.
        settings: The settings.
        with_mask: Whether the job has a mask.

    Raises:
        ValueError: An option is invalid, or they contradict each other; the message names the field.
    """
    for key in given:
        if key not in _KEYS:
            similar = difflib.get_close_matches(str(key), _KEYS, 1)
            hint = f"did you mean {similar[0]}?" if similar else f"the optional ones are with_mask, {', '.join(_KEYS)}"
            raise ValueError(f"{key!r} is not a field of video.generate; {hint}")
    container: Container = _read_choice("container", given.get("container", "mp4"), get_args(Container))
    default_fps = min(settings.fps, MAX_GIF_FPS) if container == "gif" else settings.fps
    fps = _read_choice("fps", given.get("fps", default_fps), FRAME_RATES)
    if container == "gif" and fps > MAX_GIF_FPS:
        raise ValueError(f"fps must be at most {MAX_GIF_FPS} for the container gif, got {fps}")
    if with_mask and container != WITH_MASK:
        raise ValueError(
            f"with_mask needs the container {WITH_MASK}, not {container}: a transparent WebM or MOV has alpha instead"
        )
    captions = _read_caption_ways(given.get("captions"), container)
    transcript = _read_transcript(given, captions)
    return VideoOptions(
        size=_read_choice("size", given.get("size", settings.size), SIZES),
        format=_read_choice("format", given.get("format", settings.format), get_args(Format)),
        fps=fps,
        container=container,
        background=_read_background(given.get("background"), container),
        mood=None if given.get("mood") is None else _read_choice("mood", given["mood"], get_args(Mood)),
        captions=captions,
        cues=_read_cues(given.get("captions_file"), captions),
        transcript=transcript,
    )


def _read_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if isinstance(value, bool) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}")
    return type(allowed[0])(value)  # 30.0 is 30 in JSON


def _read_caption_ways(value: Any, container: Container) -> tuple[CaptionWay, ...]:
    if value is None:
        return ()
    known = get_args(CaptionWay)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values or not all(way in known for way in values):
        raise ValueError(f"captions must be one of {', '.join(known)}, or a list of them; got {value!r}")
    if "track" in values and container not in WITH_TRACK:
        raise ValueError(f"captions: a {container} has no subtitle track; use captions: 'burned' or 'files'")
    return tuple(dict.fromkeys(values))


def _read_cues(value: Any, captions: Sequence[CaptionWay]) -> Sequence[Cue]:
    if value is None:
        return ()
    if not captions:
        raise ValueError("captions_file needs captions: 'files', 'track' or 'burned'")
    try:
        cues = read_captions(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"captions_file: {error}") from None
    if "burned" in captions:
        _check_drawable(cues)
    return cues


def _read_transcript(given: Mapping[str, Any], captions: Sequence[CaptionWay]) -> str | None:
    value = given.get("transcript")
    if value is None:
        return None
    if not captions:
        raise ValueError("transcript needs captions: 'files', 'track' or 'burned'")
    if given.get("captions_file") is not None:
        raise ValueError("transcript and captions_file exclude each other: the file has the text and the times")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"transcript must be the text that is spoken in the recording; got {value!r}")
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f"transcript has {len(value):,} characters, and {MAX_CHARACTERS:,} are allowed")
    from a2v.engine.alignment import check_installed  # noqa: PLC0415  # an extra

    try:
        check_installed()
    except ImportError as error:
        raise ValueError(f"this engine cannot use a transcript: {error}") from None
    return value


def _check_drawable(cues: Sequence[Cue]) -> None:
    """Check that the font of burned-in captions has all their characters.

    Raises:
        ValueError: Some are missing; the message names them.
    """
    from a2v.engine.drawing.text import missing_characters  # noqa: PLC0415  # drawing packages, which the server rarely needs

    missing = missing_characters("".join(line for cue in cues for line in cue.lines))
    if missing:
        names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise ValueError(
            f"captions cannot be burned in with {names}{more}: the font has Latin, Greek and Cyrillic letters; "
            "use captions: 'track' or 'files'"
        )


def _read_background(value: Any, container: Container) -> str:
    if value is None:
        return TRANSPARENT if container in ("webm", "mov") else OWN
    rule = "a colour such as '#203040', 'transparent', 'character', or the URL of a picture"
    if not isinstance(value, str) or not value:
        raise ValueError(f"background must be {rule}; got {value!r}")
    if value == TRANSPARENT and container not in WITH_ALPHA:
        names = " or ".join(", ".join(WITH_ALPHA).rsplit(", ", 1))
        raise ValueError(f"background: 'transparent' needs the container {names}; {container} has no transparency")
    if value in (TRANSPARENT, OWN) or re.fullmatch(COLOUR, value):
        return value
    if "://" not in value or value.lower().startswith("upload:"):
        raise ValueError(f"background must be {rule}; got {value!r}")
    from a2v.engine.recording_fetcher import check_audio_url  # noqa: PLC0415  # worker processes need no HTTP library

    try:
        check_audio_url(value)
    except AudioError as error:
        raise ValueError(str(error).replace("audio_url", "background", 1)) from None
    return value
