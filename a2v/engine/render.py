"""Renders a recording and a character to a video file, and to a mask if requested.

1. The recording is decoded and analysed: the probabilities of visemes and the loudness, every 10 ms (``lipsync``), and the pitch
   (``intonation``).
2. ``animation`` computes a ``FacePose`` for each frame.
3. For each frame, ``drawing`` makes a display list of the pose and rasterizes it, or ``portrait`` moves a photograph. ``video_writer``
   encodes the frame together with its sound. A frame is drawn when it is to be encoded, so only one is in memory.

Captions are drawn over the frames (``drawing.text``), or written to a subtitle track or to a file. A mask is a second video of the same
animation. It is rendered after the first one, because two encoders at once would need twice the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from attrs import evolve

from a2v._core.captions import to_vtt
from a2v.engine.animation import animate, has_speech
from a2v.engine.characters import get_camera_pose
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.drawing.bust import bust, silhouette
from a2v.engine.drawing.colours import uvya
from a2v.engine.drawing.dithering import ENCODED, STORED, dither
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.drawing.scenery import backdrop, plain_backdrop
from a2v.engine.drawing.text import Overlay
from a2v.engine.errors import RenderError
from a2v.engine.intonation import Intonation
from a2v.engine.lipsync import analyse_pieces
from a2v.engine.picture import load_picture, to_bgra
from a2v.engine.video_options import ANIMATIONS, MAX_ANIMATION_SECONDS, OWN, TRANSPARENT
from a2v.engine.video_writer import MASK, PORTRAIT_OPTIONS, encoding_of, make_buffer, open_video

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    import av
    from numpy.typing import NDArray

    from a2v.engine.audio import Recording
    from a2v.engine.captions import Captions, VideoCaptions
    from a2v.engine.characters import CameraPose, Character, CharacterSpec, Framing
    from a2v.engine.drawing.colours import ColourBytes
    from a2v.engine.drawing.display_list import Item
    from a2v.engine.drawing.rasterizer import Area
    from a2v.engine.face_pose import FacePose, Mood
    from a2v.engine.settings import Format
    from a2v.engine.video_options import Container
    from a2v.engine.video_writer import Encoding, VideoWriter

NO_SPEECH = "no speech was found in the recording, so the mouth stays closed"
"""The warning about a recording without speech."""

_MAX_UNCAPTIONED_SECONDS = 10.0  # after the last word of a transcript, without a warning
_PALETTE_STEP = 5  # every fifth frame determines the palette of a GIF


def picture_size(size: int, format: Format) -> tuple[int, int]:
    """Return the width and height in pixels of a video whose shorter side is ``size``.

    Raises:
        ValueError: The size is not an even number.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size must be an even number of pixels, got {size}")
    longer = round(size * 16 / 9 / 2) * 2
    return {"square": (size, size), "portrait": (size, longer), "landscape": (longer, size)}[format]


def render(
    recording: Recording,
    subject_id: str,
    destination: Path,
    *,
    character: Character | None = None,
    mask: Path | None = None,
    size: int = 512,
    format: Format = "square",
    fps: int = 25,
    container: Container = "mp4",
    background: str | Path = OWN,
    mood: Mood | None = None,
    captions: Captions | None = None,
    vtt: Path | None = None,
) -> str | None:
    """Render the video of a character that speaks a recording.

    The same arguments give the same video, byte for byte. ``destination``, ``mask`` and ``vtt`` appear once all of them are complete.
    Until then, their content is in temporary files beside them, which are removed if the render fails.

    Args:
        recording: The recording.
        subject_id: A ``pose_id``, or a ``model_id`` for the default pose of a character.
        destination: The path of the video; an existing file is replaced.
        character: The character; ``None`` if it is a built-in one.
        mask: The path of a second video of the same size and length, without sound: the person in white on black; ``None``: no mask.
        size: The shorter side of the video in pixels; even.
        format: The shape of the video: ``"square"``, ``"portrait"``, 9:16, or ``"landscape"``, 16:9.
        fps: Frames per second.
        container: The format of the file.
        background: ``"character"``, ``"transparent"``, a colour, or the path of a picture.
        mood: The expression of the character; ``None``: the voice determines it.
        captions: The captions of the video; ``None``: no captions. The mask never has any.
        vtt: The path of the file of captions, if they include one.

    Returns:
        A warning about the video; ``None`` if there is none.

    Raises:
        AudioError: The recording cannot be used.
        RenderError: There is no such pose or character, the picture cannot be used, the recording is too long for an
            animated picture, or the captions belong to another recording.
        ValueError: The size is not an even number.
        OSError: A video cannot be written.
    """
    width, height = picture_size(size, format)
    pose = get_camera_pose(subject_id, character)
    animation, seconds, warning = _animate_recording(recording, pose.character.model_id, fps, mood)
    if container in ANIMATIONS and seconds > MAX_ANIMATION_SECONDS:
        raise RenderError(
            f"a {container} can have at most {MAX_ANIMATION_SECONDS:g} s, and this recording has {seconds:.1f} s; "
            "choose the container mp4 or webm"
        )
    encoding = encoding_of(container, transparent=background == TRANSPARENT)
    if isinstance(pose.character, PortraitSpec):
        pictures = _portrait_pictures(pose, background, width, height, encoding)
        if container == "mp4":
            encoding = evolve(encoding, options=PORTRAIT_OPTIONS)
    else:
        pictures = _drawn_pictures(pose.character, pose.framings[format], background, width, height, encoding)
    aligned = captions.aligned(recording.pieces) if captions else None
    shown = aligned.of_video(seconds, is_wide=width > height) if aligned else None
    if captions and aligned and captions.transcript:
        warning = warning or _transcript_warning(aligned.words[-1].end, seconds)
    with _replace_when_complete([destination, mask, vtt]) as parts:
        video = open_video(parts[destination], width, height, fps, encoding)
        _render_frames(video, animation, pictures[0], recording, shown)
        if mask:
            _render_frames(open_video(parts[mask], width, height, fps, MASK), animation, pictures[1])
        if vtt:
            parts[vtt].write_text(to_vtt((shown and shown.file) or []), encoding="utf-8")
    return warning


def _transcript_warning(end: float, seconds: float) -> str | None:
    """Return a warning if a recording continues for long after the last word of its transcript."""
    if seconds - end < _MAX_UNCAPTIONED_SECONDS:
        return None
    times = [f"{int(time) // 60}:{int(time) % 60:02}" for time in (end, seconds)]
    return f"the transcript ends at {times[0]} of {times[1]}, so there are no captions after that"


class Picture(Protocol):
    """A picture in the size of the video that can show any pose."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture, in the colours of the encoding."""
        ...

    def paint(self, pose: FacePose, /) -> Area:
        """Show a pose; return the area that may have changed, which is all of the picture the first time."""
        ...


PictureMaker = Callable[[], Picture]
"""Creates a picture on demand, so that the mask's picture takes no memory while the video is rendered."""


def _drawn_pictures(  # noqa: PLR0917  # the properties of a video
    character: CharacterSpec, framing: Framing, background: str | Path, width: int, height: int, encoding: Encoding
) -> tuple[PictureMaker, PictureMaker]:
    """Return the pictures of the video and of the mask."""
    scenery: list[Item] | NDArray[np.uint8]
    if isinstance(background, Path):
        scenery = load_picture(background, width, height, encoding.colour)
    elif background == OWN:
        scenery = backdrop(character)
    else:
        scenery = [] if background == TRANSPARENT else plain_backdrop(background)
    drawing = partial(_Drawing, framing, width, height)
    return (
        partial(drawing, scenery, partial(bust, character), encoding.colour, has_gradients=background == OWN),
        partial(drawing, plain_backdrop("#000000"), partial(silhouette, character)),
    )


def _portrait_pictures(
    pose: CameraPose, background: str | Path, width: int, height: int, encoding: Encoding
) -> tuple[PictureMaker, PictureMaker]:
    """Return the pictures of the video and of the mask."""
    # Imported late: drawn characters do not need it.
    from a2v.engine.portrait.painter import Silhouette  # noqa: PLC0415
    from a2v.engine.portrait.studio import open_studio  # noqa: PLC0415

    assert isinstance(pose.character, PortraitSpec)  # noqa: S101  # for type checkers
    painter = partial(open_studio(pose.character).painter, close_up=pose.close_up, width=width, height=height)
    backdrop_pixels: NDArray[np.uint8] | None = None
    if isinstance(background, Path):
        backdrop_pixels = load_picture(background, width, height, uvya)
    elif background not in (OWN, TRANSPARENT):
        backdrop_pixels = np.full((height, width, 4), uvya(background), np.uint8)

    def make() -> Picture:
        picture: Picture = painter(cut_out=background != OWN)
        return (
            picture
            if background == OWN and encoding.colour is uvya
            else _ComposedPortrait(picture, backdrop_pixels, encoding)
        )

    return make, lambda: Silhouette(painter(cut_out=True))


class _ComposedPortrait:
    """A portrait in front of another background, or of a transparent one, in the colours of an encoding."""

    def __init__(self, portrait: Picture, backdrop_pixels: NDArray[np.uint8] | None, encoding: Encoding) -> None:
        self._portrait = portrait
        self._backdrop = backdrop_pixels
        self._is_rgb = encoding.colour is not uvya
        self.pixels: NDArray[np.uint8] = np.zeros_like(portrait.pixels)

    def paint(self, pose: FacePose) -> Area:
        """Show a pose; return the area that may have changed."""
        left, top, right, bottom = area = self._portrait.paint(pose)
        place = slice(top, bottom), slice(left, right)
        part = self._portrait.pixels[place].astype(np.float32)
        alpha = part[..., 3:] / 255
        if self._backdrop is not None:
            part += (self._backdrop[place] - part) * (1 - alpha)
            part[..., 3] = 255
        if self._is_rgb:
            part[..., :3] = to_bgra(part)
        if self._backdrop is None:
            part[..., :3] *= alpha  # the buffers expect premultiplied alpha
        self.pixels[place] = (part + 0.5).astype(np.uint8)
        return area


class _Drawing:
    """The picture of a drawn character in front of a scenery, which is a display list or pixels."""

    def __init__(  # noqa: PLR0917  # the properties of a video
        self,
        framing: Framing,
        width: int,
        height: int,
        scenery: list[Item] | NDArray[np.uint8],
        draw: Callable[[FacePose], list[Item]],
        colour: Callable[[str], ColourBytes] = uvya,
        *,
        has_gradients: bool = False,
    ) -> None:
        self._draw = draw
        self._rasterizer = Rasterizer(width, height, framing, colour)
        if not isinstance(scenery, list):
            self._rasterizer.set_backdrop(scenery)
        elif scenery:
            self._rasterizer.paint(scenery)
            pixels = self._rasterizer.pixels
            noise = ENCODED if colour is uvya else STORED
            self._rasterizer.set_backdrop(dither(pixels, noise) if has_gradients else pixels.copy())

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self._rasterizer.pixels

    def paint(self, pose: FacePose) -> Area:
        return self._rasterizer.paint(self._draw(pose))


def _animate_recording(
    recording: Recording, model_id: str, fps: int, mood: Mood | None
) -> tuple[Callable[[], Iterator[FacePose]], float, str | None]:
    """Analyse a recording; return a function that starts its animation, its length in seconds, and a warning if there is one."""
    intonation = Intonation()
    probabilities, loudness = analyse_pieces(intonation.listen(recording.pieces()))
    seed = hashlib.sha256(recording.digest() + model_id.encode()).digest()
    start = partial(
        animate,
        probabilities,
        loudness,
        seed=int.from_bytes(seed[:8], "big"),
        fps=fps,
        mood=mood,
        pitch=intonation.semitones(),
    )
    return start, len(probabilities) / 100, None if has_speech(probabilities) else NO_SPEECH


def _render_frames(
    video: AbstractContextManager[VideoWriter],
    animation: Callable[[], Iterator[FacePose]],
    make_picture: PictureMaker,
    soundtrack: Recording | None = None,
    captions: VideoCaptions | None = None,
) -> None:
    # The video is opened here, so that its encoder is freed before the caller opens the next one.
    with video as writer:
        if soundtrack is not None:
            writer.add_soundtrack(soundtrack)
        if captions and captions.track is not None:
            writer.add_captions(captions.track, captions.language)
        buffer = make_buffer(writer.encoding, writer.width, writer.height)
        picture = make_picture()
        burned = captions.burned if captions else []
        whole_frame = (0, 0, writer.width, writer.height)

        def frames(step: int = 1) -> Iterator[av.VideoFrame]:
            overlay = Overlay(burned, writer.width, writer.height, writer.encoding.colour) if burned else None
            for number, pose in islice(enumerate(animation()), 0, None, step):
                area, pixels = picture.paint(pose), picture.pixels
                if overlay:
                    area = overlay.show(pixels, area if number else whole_frame, number / writer.fps)
                    pixels = overlay.pixels
                buffer.update(pixels, area)
                yield buffer.frame

        if writer.encoding.pixels == "pal8":
            writer.use_palette_of(frames(_PALETTE_STEP))
        for frame in frames():
            writer.add_frame(frame)


@contextmanager
def _replace_when_complete(destinations: Iterable[Path | None]) -> Iterator[dict[Path, Path]]:
    """Provide temporary paths, which replace the destinations if the block succeeds and are removed otherwise."""
    parts = {path: path.with_name(f".{path.name}.part") for path in destinations if path}
    try:
        yield parts
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
