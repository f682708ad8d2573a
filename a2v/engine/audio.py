"""Recordings: from untrusted bytes to samples.

FFmpeg opens whatever a file tells it to open: a playlist that is named ``.mp3`` makes it read other files and sockets, also
when it is given bytes. So its guessing is never used. ``formats`` tells the kind by the bytes, FFmpeg is held to it, may use
the decoders of a list only, and is refused every further file it asks for.

A recording is read twice, so that little of it is in memory: by ``Recording.pieces`` for the analysis, which also measures
what the soundtrack needs to know (its loudest moments, how many sides it has), and then by ``Recording.soundtrack``, while
the video is written. Its format may change on the way: files are joined, and streams change their channels.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import av
import numpy as np
from av.error import FFmpegError

from a2v.engine import formats
from a2v.engine.errors import AudioError
from a2v.engine.levels import LevelMeter
from a2v.engine.mixing import HUGE, SILENT, Segment, cleaned, samples_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from av.container import InputContainer
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

logger: logging.Logger = logging.getLogger("a2v.engine")

RATE = 16_000
"""Samples a second for the analysis."""
SOUNDTRACK_RATE = 48_000
"""Samples a second in the video."""
MAX_SECONDS = 1800.0
"""The longest recording, unless a caller says otherwise."""
MIN_SECONDS = 0.01
"""The shortest recording: one row of the analysis."""
Source = bytes | Path
"""A whole file, or where it is. FFmpeg is given bytes in both cases."""
_File = io.BytesIO | io.BufferedReader

_RATES = range(4_000, 384_001)
_MAX_CHANNELS = 16
_MOST_TRACKS = 16  # that are looked at
_SPEECH, _HEARD_SECONDS = 10**-4.5, 0.2  # a track that is louder than that for so long has more than hiss
_EXACT = {"flac", "mp4", "aiff", "caf", "au", "w64"}  # kinds that say reliably how much sound they hold
_DECODERS = (
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,adpcm_g722,adpcm_g726,adpcm_g726le,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,alac,amrnb,"
    "amrwb,eac3,flac,gsm,gsm_ms,libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,"
    "mp3float,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,"
    "pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,vorbis"
)
# Tags may be in any encoding, and are not used here. PyAV 19 always accepts them and has no such argument.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_LEAST_MP3 = 1000  # bytes a second
_UNKNOWN_DURATION = (1 << 31) - 1  # or more: a program did not know it
_OPEN_SECONDS, _SECONDS_A_MIB, _REAL_TIME = 20.0, 1.0, 60.0


def decode(source: Source, *, max_seconds: float = MAX_SECONDS) -> Samples:
    """Decode a recording to mono float32 samples, 16,000 a second, for the analysis.

    Args:
        source: A whole file, or where it is: WAV, MP3, AAC, M4A or MP4, Ogg, FLAC, WebM or MKV, AIFF, CAF, AU, AMR.
        max_seconds: The longest recording to accept.

    Raises:
        AudioError: This is not such a file, is damaged or protected, holds no sound, or is too short or too long.
        OSError: The file cannot be read.
    """
    return np.concatenate(list(pieces(source, max_seconds=max_seconds)))


def pieces(source: Source, *, max_seconds: float = MAX_SECONDS) -> Iterator[Samples]:
    """Yield what ``decode`` returns, a piece at a time, so that little of a long recording is in memory."""
    return Recording(source, max_seconds=max_seconds).pieces()


def digest(source: Source) -> bytes:
    """The SHA-256 of the file."""
    with _reading(source) as file:
        return hashlib.file_digest(file, "sha256").digest()


def sniff(source: Source) -> str:
    """The kind of the file, by FFmpeg's name.

    Raises:
        AudioError: It is not of a kind that is accepted.
    """
    with _reading(source) as file:
        return formats.recognise(file).kind


def is_stereo(source: Source) -> bool:
    """Whether the soundtrack of the video has two channels."""
    return Recording(source).stereo


def soundtrack(source: Source, *, stereo: bool) -> Iterator[av.AudioFrame]:
    """Frames for an AAC encoder, 48,000 samples a second, with one channel or two."""
    return Recording(source).soundtrack(stereo=stereo)


class DecodeTimeLimit:
    """CPU time taken to open and decode a file, and how much of it is allowed.

    A few hundred kilobytes can keep FFmpeg's parsers busy for hours. So the time is bounded: 20 s, 1 s for each MiB of the
    file, and 1 s for each minute of sound that was decoded. What takes longer raises ``AudioError``. While FFmpeg is
    at work nothing can be raised, so ``worker`` looks at ``exceeded`` from another thread.
    """

    def __init__(self) -> None:
        self._limit = float("inf")
        self._spent = 0.0
        self._since: float | None = None

    def start(self, size: int) -> None:
        """Begin, for a file of so many bytes; reading it once more goes on counting."""
        if self._limit == float("inf"):
            self._limit = _OPEN_SECONDS + _SECONDS_A_MIB * size / (1 << 20)

    def allow(self, seconds: float) -> None:
        """Count sound that was decoded."""
        self._limit += seconds / _REAL_TIME

    @property
    def exceeded(self) -> bool:
        """Whether it takes too long."""
        since = self._since
        return self._spent + (0 if since is None else time.process_time() - since) > self._limit

    @property
    def error(self) -> AudioError:
        """What is to be said then."""
        return AudioError(f"The recording is damaged: reading it takes longer than {self._limit:.0f} seconds.")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block takes.

        Raises:
            AudioError: It is too much.
        """
        self._since = time.process_time()
        try:
            yield
        finally:
            self._spent, self._since = self._spent + time.process_time() - self._since, None
        if self.exceeded:
            raise self.error


class Recording:
    """A file of which the sound is wanted, first for the analysis and then for the video.

    Args:
        source: A whole file, or where it is.
        max_seconds: The longest recording to accept.
    """

    def __init__(self, source: Source, *, max_seconds: float = MAX_SECONDS) -> None:
        self.source = source
        self.time_limit: DecodeTimeLimit = DecodeTimeLimit()
        self._max_seconds = max_seconds
        self._track: int | None = None  # index of the audio track among those of the file
        self._scale = 1.0  # for the analysis: brings floating-point samples that exceed full scale back into it
        self._meter: LevelMeter | None = None  # what was measured, once all of it was

    @property
    def meter(self) -> LevelMeter:
        """What was measured; listens to the recording if nobody did yet."""
        while self._meter is None:
            for _ in self.pieces():
                continue
        return self._meter

    @property
    def stereo(self) -> bool:
        """Whether the soundtrack has two channels: one-sided recordings are to be heard on both sides."""
        return self.meter.channels > 1 and self.meter.side is None

    def pieces(self) -> Iterator[Samples]:
        """Yield mono samples for the analysis, 16,000 a second.

        Raises:
            AudioError: The recording cannot be used.
            OSError: The file cannot be read.
        """
        meter, limit, total = LevelMeter(), int(self._max_seconds * RATE), 0
        for block in self._resampled(RATE, 1, meter):
            total += block.shape[1]
            if total > limit:
                raise self._too_long()
            yield cleaned(cleaned(block[0], HUGE) * np.float32(self._scale), 1.0)
        if not total:
            raise AudioError("The recording is empty: it holds no sound at all.")
        if total < MIN_SECONDS * RATE:
            raise AudioError(f"The recording is too short: {total / RATE * 1000:.2g} ms, and 10 ms is the shortest.")
        self._meter = meter

    def soundtrack(self, *, stereo: bool | None = None) -> Iterator[av.AudioFrame]:
        """Yield frames for an AAC encoder: 48,000 samples a second, finite, and no louder than it can take.

        Args:
            stereo: Whether there are two channels; by default what suits the recording.
        """
        rows = 1 + (self.stereo if stereo is None else stereo)
        gain, position = np.float32(self.meter.gain), 0
        for block in self._resampled(SOUNDTRACK_RATE, rows):
            samples = np.ascontiguousarray(cleaned(cleaned(block, HUGE) * gain, LevelMeter.CEILING))
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo" if rows == 2 else "mono")
            frame.sample_rate = SOUNDTRACK_RATE
            frame.pts, frame.time_base = position, Fraction(1, SOUNDTRACK_RATE)
            position += frame.samples
            yield frame

    def _resampled(self, rate: int, rows: int, meter: LevelMeter | None = None) -> Iterator[Samples]:
        """The recording in one row or two: for the analysis if there is a meter to be shown it, else for the video."""
        segment: Segment | None = None
        for frame in self._frames():
            if meter is not None:
                meter.add(frame)
            if segment is None or not segment.fits(frame):
                if segment is not None:
                    yield from segment.add(None)
                side = self.meter.side if meter is None else None
                segment = Segment(frame, rate, rows, loudspeakers=meter is None, side=side)
            yield from segment.add(frame)
        if segment is not None:
            yield from segment.add(None)

    def _too_long(self) -> AudioError:
        longest = _spoken(self._max_seconds)
        return AudioError(f"The recording is longer than {longest}, the longest that is rendered here.")

    # -- decoding -----------------------------------------------------------------------------------------------------

    def _frames(self) -> Iterator[av.AudioFrame]:
        """All frames of the track, on the clock."""
        with closing(self._decoded()) as frames:
            while True:
                with self.time_limit.running():
                    frame = next(frames, None)
                if frame is None:
                    return
                self.time_limit.allow(frame.samples / frame.sample_rate)
                yield frame

    def _decoded(self) -> Generator[av.AudioFrame]:
        with _reading(self.source) as file:
            self.time_limit.start(file.seek(0, io.SEEK_END))
            found = formats.recognise(file)
            first, *others = _windows(file, found)
            yield from self._decoded_part(first)
            for window in others:
                # What is joined to a recording may be anything; players end before it.
                with suppress(AudioError):
                    yield from self._decoded_part(window)

    def _decoded_part(self, window: _Window) -> Iterator[av.AudioFrame]:
        has_length = window.has_length
        with _opened(window) as container:
            track = self._chosen(container, window)
            announced = _announced(container, track, window.size) if has_length else None
            if announced is not None and announced > self._max_seconds + 1:
                raise self._too_long()
            heard = end = 0.0
            for frame in _frames_of(container, track, window):
                heard += frame.samples / frame.sample_rate
                # In some films the sound begins later than the picture, and the silence before it counts.
                end = max(end, (frame.time or 0.0) + frame.samples / frame.sample_rate)
                frame.pts = None  # joined recordings begin anew, which a resampler refuses
                yield frame
            is_exact = window.kind in _EXACT and not window.is_fragmented
            if is_exact and announced is not None and max(heard, end) < 0.9 * announced - 0.5:
                raise AudioError(
                    f"The recording is cut off: it announces {announced:.1f} seconds and holds {heard:.1f}."
                )

    def _chosen(self, container: InputContainer, window: _Window) -> av.AudioStream:
        """The track that is rendered; decides at first which it is, and how large its samples are.

        The first track may be silent, or hold no more than hiss: some screen recorders write the sound of the programs and that
        of the microphone to one each. And some programs write floating-point samples as large as integers.
        """
        tracks = _tracks(container)
        if self._track is not None:
            return next((track for track in tracks if track.index == self._track), tracks[0])
        chosen = tracks[0]
        if len(tracks) > 1:
            looked_at = tracks[:_MOST_TRACKS]
            fitting = (
                track
                for level, seconds in ((_SPEECH, _HEARD_SECONDS), (SILENT, 0.0))
                for track in looked_at
                if self._is_heard(track.index, window, level, seconds)
            )
            chosen = next(fitting, chosen)
            if chosen is not tracks[0]:
                logger.info("the recording's first audio track is silent; another one is rendered")
        self._track = chosen.index
        if chosen.codec_context.name.startswith("pcm_f"):
            meter = LevelMeter()
            for frame in self._probed(chosen.index, window):
                meter.add(frame)
            if meter.peak > 1:
                self._scale = 1 / meter.peak
        return chosen

    def _is_heard(self, index: int, window: _Window, level: float, seconds: float) -> bool:
        """Whether a track is louder than a level (mean power) for longer than so many seconds in all."""
        heard = 0.0
        for frame in self._probed(index, window):
            if cleaned(samples_of(frame), HUGE).var(axis=1).max() > level:
                heard += frame.samples / frame.sample_rate
                if heard > seconds:
                    return True
        return False

    def _probed(self, index: int, window: _Window) -> Iterator[av.AudioFrame]:
        """A track, read on its own."""
        with _reading(self.source) as file, _opened(window.of(file)) as container:
            track = next(track for track in container.streams.audio if track.index == index)
            with suppress(AudioError):
                yield from _frames_of(container, track, window)


# -- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(source: Source) -> Iterator[_File]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file


class _Window:
    """The part of a file that is one recording, behind tags and garbage.

    FFmpeg learns nothing of it but its bytes: PyAV would also tell it a name.
    """

    def __init__(self, file: _File, kind: str, start: int, end: int, corrections: dict[int, bytes]) -> None:
        self.kind = kind
        self._file, self._start, self._end = file, start, end
        self._corrections = corrections

    def of(self, file: _File) -> _Window:
        """The same part, by another open file."""
        return _Window(file, self.kind, self._start, self._end, self._corrections)

    @property
    def has_length(self) -> bool:
        """Whether the file itself says how long it is."""
        return formats.has_length(self._file, self.kind, self._start)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._end - self._start

    @property
    def is_fragmented(self) -> bool:
        """Whether it was written in fragments, as streams are."""
        return formats.is_fragmented(self._file, self.kind, self._start)

    @property
    def is_protected(self) -> bool:
        """Whether it is encrypted."""
        return formats.is_protected(self._file, self.kind)

    def read(self, size: int) -> bytes:
        """Read so many bytes, or fewer at the end; with what ``formats`` corrects of them."""
        at = self._file.tell()
        data = self._file.read(max(0, min(size, self._end - at)))
        for place, right in self._corrections.items():
            if at <= place and place + len(right) <= at + len(data):
                data = data[: place - at] + right + data[place - at + len(right) :]
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the part."""
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._end}[whence]
        return self._file.seek(max(base + offset, self._start)) - self._start

    def tell(self) -> int:
        """Where that is."""
        return self._file.tell() - self._start


def _windows(file: _File, found: formats.Found) -> list[_Window]:
    """The recordings that a file is joined of; most are one."""
    end = file.seek(0, io.SEEK_END)
    starts = formats.links(file, found)
    return [
        _Window(file, found.kind, start, stop, formats.corrections(file, found) if start == found.start else {})
        for start, stop in pairwise([*starts, end])
    ]


# -- FFmpeg -----------------------------------------------------------------------------------------------------------


class _OpensAnotherFileError(PermissionError):
    pass


def _refuse(*_: object) -> NoReturn:
    raise _OpensAnotherFileError("a recording has no business opening other files")


@contextmanager
def _explained(window: _Window) -> Iterator[None]:
    """What FFmpeg says of a file is about the file. Other errors are not, and stay what they are."""
    try:
        yield
    except (FFmpegError, _OpensAnotherFileError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _unreadable(window) from error


def _unreadable(window: _Window) -> AudioError:
    if window.is_protected:
        return AudioError("The recording is protected (DRM): only the player that it was sold for can read it.")
    name = formats.NAMES[window.kind]
    return AudioError(f"The recording cannot be decoded: the {name} file is damaged or not what it claims to be.")


@contextmanager
def _opened(window: _Window) -> Iterator[InputContainer]:
    """The file as FFmpeg sees it, of this kind and no other, with nothing but its own bytes in reach."""
    options = {"protocol_whitelist": "pipe", "format_whitelist": window.kind, "codec_whitelist": _DECODERS}
    window.seek(0)
    with _explained(window):
        container = av.open(
            window,
            "r",
            format=window.kind,
            container_options=options,
            io_open=_refuse,
            **_ANY_TAGS,
        )
    with container:
        yield container


def _tracks(container: InputContainer) -> list[av.AudioStream]:
    """The audio tracks that can be decoded, the best one first.

    Raises:
        AudioError: There is none.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        raise AudioError("The file holds no audio track.")
    best = container.streams.best("audio")
    tracks.sort(key=lambda track: track is not best)
    faults = {track.index: _fault(track) for track in tracks}
    usable = [track for track in tracks if faults[track.index] is None]
    if not usable:
        raise AudioError(faults[tracks[0].index])
    return usable


def _fault(track: av.AudioStream) -> str | None:
    """Why a track cannot be decoded. FFmpeg has many more decoders than are of use here, and any file can name them."""
    context = track.codec_context
    name = getattr(context, "name", None)  # there is no context for what FFmpeg itself does not know
    if name is None:
        return f"The audio track is of a kind that cannot be decoded here. {_CONVERT}"
    if name not in _DECODERS.split(","):
        return f"The audio track is {context.codec.long_name}, which cannot be decoded here. {_CONVERT}"
    if context.sample_rate == 0 or context.channels == 0:
        return "The recording holds no sound that can be decoded."
    return _format_fault(context.sample_rate, context.channels)


_CONVERT = "Convert the file: ffmpeg -i recording.xyz recording.flac"


def _format_fault(rate: int, channels: int) -> str | None:
    # A file of a few kilobytes at one sample a second would become hours of sound.
    if rate in _RATES and 1 <= channels <= _MAX_CHANNELS:
        return None
    return (
        f"A recording of {channels} channels at {rate} Hz cannot be rendered: "
        f"the most are {_MAX_CHANNELS} channels, at {_RATES[0]} to {_RATES[-1]} Hz."
    )


def _frames_of(container: InputContainer, track: av.AudioStream, window: _Window) -> Iterator[av.AudioFrame]:
    """All frames that can be decoded; players skip a damaged one, and so does this, but not when most are.

    Raises:
        AudioError: Most are damaged.
    """
    good = bad = 0
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except MemoryError:
            raise
        except FFmpegError:
            bad += 1
            continue
        if packet is None:
            break
        good += len(frames)
        for frame in frames:
            if frame.samples:
                fault = _format_fault(frame.sample_rate, frame.layout.nb_channels)
                if fault:
                    raise AudioError(fault)
                yield frame
    if bad > good:
        raise _unreadable(window)


def _announced(container: InputContainer, track: av.AudioStream, size: int) -> float | None:
    """Seconds of sound that the file says it holds, by the track: the longest one may be the picture.

    Nothing if that cannot be true for so many bytes: some programs do not know the length when they write it.
    """
    if track.duration is not None and track.time_base is not None:
        if track.duration >= _UNKNOWN_DURATION:
            return None
        seconds = float(track.duration * track.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    else:
        return None
    context = track.codec_context
    if context.name.startswith("pcm_") and seconds * (context.bit_rate or 0) / 8 > formats.MOST_BYTES:
        return None
    if context.name.startswith("mp3") and seconds * _LEAST_MP3 > size:
        return None
    return seconds


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds > 90 else f"{seconds:g} second{'s' * (seconds != 1)}"
