"""Decodes untrusted recordings with FFmpeg.

FFmpeg opens whatever a file tells it to: a playlist named ``speech.mp3`` makes it read other files and connect to servers, even
if it is given bytes instead of a path. Therefore FFmpeg never guesses: ``formats`` detects the container format, FFmpeg is
restricted to that format and to a list of decoders, sees nothing but the bytes of the recording (``RecordingFile``), and may
open no other file.

An ``AudioError`` rejects

* files of other formats (``formats``), encrypted tracks, and tracks without a decoder in the list;
* more than 16 channels, and sample rates outside 4 to 384 kHz: a small file at 1 Hz would become hours of sound;
* files whose damaged packets outnumber the frames that can be decoded. Like players, the decoder skips single damaged packets;
* recordings that are cut off, if the format states their length reliably (``container_headers`` corrects the headers of some formats
  first);
* recordings longer than the limit: by the stated duration, before anything is decoded, or else by the decoded samples (``audio``);
* files that take FFmpeg too much CPU time (``DecodeTimeLimit``).

Other errors, such as those of the disk, propagate unchanged.
"""

from __future__ import annotations

import io
import logging
import time
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import av
from av.error import FFmpegError

from a2v.engine import container_headers, formats
from a2v.engine.errors import AudioError
from a2v.engine.levels import LevelMeter
from a2v.engine.mixing import SILENT, samples_of, sanitized

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from av.container import InputContainer

    from a2v.engine.formats import FileFormat

logger: logging.Logger = logging.getLogger("a2v.engine")

Source = bytes | Path
"""A recording: the content of a file, or its path."""
_File = io.BytesIO | io.BufferedReader

_DECODERS = (
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,adpcm_g722,adpcm_g726,adpcm_g726le,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,alac,amrnb,"
    "amrwb,eac3,flac,gsm,gsm_ms,libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,"
    "mp3float,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,"
    "pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,vorbis"
)
_SAMPLE_RATES = range(4_000, 384_001)
_MAX_CHANNELS = 16
_CONVERT = "Convert the file: ffmpeg -i recording.xyz recording.flac"
# Tags may have any encoding, and are not used. PyAV 19 always accepts them and has no such argument.
_IGNORE_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}

# Choosing a track: one whose mean power exceeds _SPEECH_POWER for more than _SPEECH_SECONDS has more than hiss.
_MAX_PROBED_TRACKS = 16
_SPEECH_POWER, _SPEECH_SECONDS = 10**-4.5, 0.2

# Stated durations.
_EXACT_FORMATS = {"flac", "mp4", "aiff", "caf", "au", "w64"}  # which state their length reliably
_UNKNOWN_DURATION = (1 << 31) - 1  # this and larger values are placeholders of programs that did not know the duration
_MIN_MP3_BYTE_RATE = 1000  # bytes per second of sound

# CPU seconds that opening and decoding a file may take: a base, more per MiB, and one per 60 s of decoded sound.
_BASE_SECONDS, _SECONDS_PER_MIB, _SOUND_PER_CPU_SECOND = 20.0, 1.0, 60.0


class DecodeTimeLimit:
    """Limits the CPU time for opening and decoding a file.

    A few hundred kilobytes can keep FFmpeg's parsers busy for hours. The limit is 20 s, 1 s per MiB of the file, and 1 s per
    minute of decoded sound; a file that exceeds it raises ``AudioError``. FFmpeg cannot be interrupted by an exception, so
    ``worker`` also checks ``exceeded`` from another thread.
    """

    def __init__(self) -> None:
        self._limit = float("inf")
        self._spent = 0.0
        self._running_since: float | None = None

    def start(self, size: int) -> None:
        """Set the limit for a file of ``size`` bytes. Reading the file again continues the same count."""
        if self._limit == float("inf"):
            self._limit = _BASE_SECONDS + _SECONDS_PER_MIB * size / (1 << 20)

    def extend(self, seconds: float) -> None:
        """Raise the limit for ``seconds`` of decoded sound."""
        self._limit += seconds / _SOUND_PER_CPU_SECOND

    @property
    def exceeded(self) -> bool:
        """Whether the limit is exceeded; may be read from any thread."""
        since = self._running_since
        return self._spent + (0 if since is None else time.process_time() - since) > self._limit

    @property
    def error(self) -> AudioError:
        """The error to raise when the limit is exceeded."""
        return AudioError(f"The recording is damaged: reading it takes longer than {self._limit:.0f} seconds.")

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count the CPU time of the block.

        Raises:
            AudioError: The limit is exceeded.
        """
        self._running_since = time.process_time()
        try:
            yield
        finally:
            self._spent, self._running_since = self._spent + time.process_time() - self._running_since, None
        if self.exceeded:
            raise self.error


class Decoder:
    """Decodes the frames of one track of a recording, as often as needed.

    A file may be a concatenation of recordings, and streams may change their channels, so the format of the frames may change.

    Args:
        source: The content of a file, or its path.
        max_seconds: The longest recording to accept.
    """

    def __init__(self, source: Source, max_seconds: float) -> None:
        self.time_limit: DecodeTimeLimit = DecodeTimeLimit()
        self.scale: float = 1.0
        """Factor that brings floating-point samples into full scale. Known once the first frame is decoded."""
        self._source = source
        self._max_seconds = max_seconds
        self._track: int | None = None  # index of the stream in the file, once chosen

    def frames(self) -> Iterator[av.AudioFrame]:
        """Yield the decoded frames.

        Raises:
            AudioError: The recording cannot be used.
            OSError: The file cannot be read.
        """
        with closing(self._decode()) as frames:
            while True:
                with self.time_limit.measure():
                    frame = next(frames, None)
                if frame is None:
                    return
                self.time_limit.extend(frame.samples / frame.sample_rate)
                yield frame

    def too_long(self) -> AudioError:
        """Return the error for a recording that is longer than the limit."""
        longest = self._max_seconds
        limit = f"{longest / 60:g} minutes" if longest > 90 else f"{longest:g} second{'s' * (longest != 1)}"
        return AudioError(f"The recording is longer than {limit}, the limit of this engine.")

    def _decode(self) -> Generator[av.AudioFrame]:
        with open_source(self._source) as file:
            self.time_limit.start(file.seek(0, io.SEEK_END))
            first, *others = _recording_files(file)
            yield from self._decode_recording(first)
            for recording in others:
                # What follows may not be a recording at all; players stop there.
                with suppress(AudioError):
                    yield from self._decode_recording(recording)

    def _decode_recording(self, recording: RecordingFile) -> Iterator[av.AudioFrame]:
        states_duration = container_headers.states_duration(recording.file, recording.format)
        with _open_container(recording) as container:
            track = self._choose_track(container, recording)
            stated = _stated_duration(container, track, recording.size) if states_duration else None
            if stated is not None and stated > self._max_seconds + 1:
                raise self.too_long()
            decoded = end = 0.0
            for frame in _decode_track(container, track, recording):
                decoded += frame.samples / frame.sample_rate
                # In some films the sound begins later than the picture; the stated duration includes this gap.
                end = max(end, (frame.time or 0.0) + frame.samples / frame.sample_rate)
                frame.pts = None  # timestamps restart in concatenated recordings, which resamplers reject
                yield frame
            is_exact = recording.format.name in _EXACT_FORMATS and not container_headers.is_fragmented(
                recording.file, recording.format
            )
            if is_exact and stated is not None and max(decoded, end) < 0.9 * stated - 0.5:
                raise AudioError(
                    f"The recording is cut off: it states {stated:.1f} seconds of sound and has {decoded:.1f}."
                )

    # -- the track ----------------------------------------------------------------------------------------------------

    def _choose_track(self, container: InputContainer, recording: RecordingFile) -> av.AudioStream:
        """Return the track to decode; the first call chooses it and measures ``scale``.

        FFmpeg's choice may be silent or only hiss: some screen recorders write the sound of programs to one track and the sound of
        the microphone to another. So the first track that is loud enough for speech is chosen, or else the first one with any
        sound. Some programs write floating-point samples in the range of integers, hence ``scale``.
        """
        tracks = _usable_tracks(container)
        if self._track is not None:
            return next((track for track in tracks if track.index == self._track), tracks[0])
        chosen = tracks[0]
        if len(tracks) > 1:
            audible = (
                track
                for power, seconds in ((_SPEECH_POWER, _SPEECH_SECONDS), (SILENT, 0.0))
                for track in tracks[:_MAX_PROBED_TRACKS]
                if self._is_louder(track.index, recording, power, seconds)
            )
            chosen = next(audible, chosen)
            if chosen is not tracks[0]:
                logger.info("the recording's first audio track is silent; another one is rendered")
        self._track = chosen.index
        if chosen.codec_context.name.startswith("pcm_f"):
            meter = LevelMeter()
            for frame in self._probe(chosen.index, recording):
                meter.add(frame)
            if meter.peak > 1:
                self.scale = 1 / meter.peak
        return chosen

    def _is_louder(self, index: int, recording: RecordingFile, power: float, seconds: float) -> bool:
        """Whether frames of more than ``seconds`` in total exceed a mean power."""
        loud = 0.0
        for frame in self._probe(index, recording):
            if sanitized(samples_of(frame)).var(axis=1).max() > power:
                loud += frame.samples / frame.sample_rate
                if loud > seconds:
                    return True
        return False

    def _probe(self, index: int, recording: RecordingFile) -> Iterator[av.AudioFrame]:
        """Decode a track separately, until its end or an error."""
        with open_source(self._source) as file, _open_container(recording.reopened(file)) as container:
            track = next(track for track in container.streams.audio if track.index == index)
            with suppress(AudioError):
                yield from _decode_track(container, track, recording)


# -- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def open_source(source: Source) -> Iterator[_File]:
    """Open a recording for reading."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file


class RecordingFile:
    """One recording within a file, between tags and garbage; a binary file for FFmpeg.

    It has no ``name``: PyAV would pass it on to FFmpeg.

    Args:
        file: The file, open.
        format: The format, and where the recording begins.
        end: The offset of its end.
        patches: The bytes to return instead of the bytes of the file, by offset.
    """

    def __init__(self, file: _File, format: FileFormat, end: int, patches: dict[int, bytes]) -> None:
        self.file: _File = file
        self.format: FileFormat = format
        self._end = end
        self._patches = patches

    def reopened(self, file: _File) -> RecordingFile:
        """Return the same recording, read through another open file."""
        return RecordingFile(file, self.format, self._end, self._patches)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._end - self.format.start

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes, patched."""
        at = self.file.tell()
        data = self.file.read(max(0, min(size, self._end - at)))
        for offset, patch in self._patches.items():
            if at <= offset and offset + len(patch) <= at + len(data):
                data = data[: offset - at] + patch + data[offset - at + len(patch) :]
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset within the recording; never before its start."""
        base = {io.SEEK_SET: self.format.start, io.SEEK_CUR: self.file.tell(), io.SEEK_END: self._end}[whence]
        return self.file.seek(max(base + offset, self.format.start)) - self.format.start

    def tell(self) -> int:
        """Return the offset within the recording."""
        return self.file.tell() - self.format.start


def _recording_files(file: _File) -> list[RecordingFile]:
    """Return the concatenated recordings of a file; usually there is one.

    Raises:
        AudioError: The format is not supported, or the recording is cut off.
    """
    detected = formats.detect_format(file)
    starts = container_headers.recording_starts(file, detected)
    patches = container_headers.size_patches(file, detected)
    return [
        RecordingFile(file, detected._replace(start=start), end, patches if start == detected.start else {})
        for start, end in pairwise([*starts, file.seek(0, io.SEEK_END)])
    ]


# -- FFmpeg -----------------------------------------------------------------------------------------------------------


class _OpensAnotherFileError(PermissionError):
    pass


def _reject_opening(*_: object) -> NoReturn:
    raise _OpensAnotherFileError("a recording must not open other files")


@contextmanager
def _open_container(recording: RecordingFile) -> Iterator[InputContainer]:
    """Open a recording with FFmpeg, restricted to its format, to the list of decoders and to its own bytes."""
    options = {"protocol_whitelist": "pipe", "format_whitelist": recording.format.name, "codec_whitelist": _DECODERS}
    recording.seek(0)
    try:
        container = av.open(
            recording,
            "r",
            format=recording.format.name,
            container_options=options,
            io_open=_reject_opening,
            **_IGNORE_TAGS,
        )
    except (FFmpegError, _OpensAnotherFileError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _undecodable(recording) from error
    with container:
        yield container


def _undecodable(recording: RecordingFile) -> AudioError:
    if container_headers.is_encrypted(recording.file, recording.format):
        return AudioError("The recording is protected (DRM): only the player that it was sold for can read it.")
    name = formats.NAMES[recording.format.name]
    return AudioError(f"The recording cannot be decoded: the {name} file is damaged or not what it claims to be.")


def _usable_tracks(container: InputContainer) -> list[av.AudioStream]:
    """Return the audio tracks that can be decoded, FFmpeg's choice first.

    Raises:
        AudioError: There is none.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        raise AudioError("The file has no audio track.")
    best = container.streams.best("audio")
    tracks.sort(key=lambda track: track is not best)
    faults = {track.index: _track_fault(track) for track in tracks}
    usable = [track for track in tracks if faults[track.index] is None]
    if not usable:
        raise AudioError(faults[tracks[0].index])
    return usable


def _track_fault(track: av.AudioStream) -> str | None:
    context = track.codec_context
    name = getattr(context, "name", None)  # a track that FFmpeg has no decoder for has no context
    if name is None:
        return f"The audio track has an unknown codec, which cannot be decoded here. {_CONVERT}"
    if name not in _DECODERS.split(","):
        return f"The audio track is {context.codec.long_name}, which cannot be decoded here. {_CONVERT}"
    if context.sample_rate == 0 or context.channels == 0:
        return "The recording has no sound that can be decoded."
    return _sample_format_fault(context.sample_rate, context.channels)


def _sample_format_fault(rate: int, channels: int) -> str | None:
    if rate in _SAMPLE_RATES and 1 <= channels <= _MAX_CHANNELS:
        return None
    return (
        f"A recording with {channels} channels at {rate} Hz cannot be rendered; "
        f"up to {_MAX_CHANNELS} channels at {_SAMPLE_RATES[0]} to {_SAMPLE_RATES[-1]} Hz are supported."
    )


def _decode_track(
    container: InputContainer, track: av.AudioStream, recording: RecordingFile
) -> Iterator[av.AudioFrame]:
    """Yield the frames of a track, skipping damaged packets.

    Raises:
        AudioError: There are more damaged packets than frames.
    """
    decoded = damaged = 0
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except MemoryError:
            raise
        except FFmpegError:
            damaged += 1
            continue
        if packet is None:
            break
        decoded += len(frames)
        for frame in frames:
            if frame.samples:
                # Checked again: a stream may change its format.
                fault = _sample_format_fault(frame.sample_rate, frame.layout.nb_channels)
                if fault:
                    raise AudioError(fault)
                yield frame
    if damaged > decoded:
        raise _undecodable(recording)


def _stated_duration(container: InputContainer, track: av.AudioStream, size: int) -> float | None:
    """Return the duration of a track in seconds, as the file states it; ``None`` if that is impossible for its size.

    The duration of the file is the last resort, because its video track may be longer.
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
    if context.name.startswith("pcm_") and seconds * (context.bit_rate or 0) / 8 > container_headers.MAX_SOUND_BYTES:
        return None
    if context.name.startswith("mp3") and seconds * _MIN_MP3_BYTE_RATE > size:
        return None
    return seconds
