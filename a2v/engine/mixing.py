"""Resamples recordings and mixes their channels to one or two, without losing a voice.

Channels cancel each other out where one has the inverse polarity of another (a miswired plug, a balanced cable), and a mix of
six is quiet if only one channel has a voice. So ``Mixer`` compares the mix with its loudest channel every quarter of a second: where
the mix is 12 dB below, that channel replaces it, until the mix is within 6 dB again. The two thresholds keep it from switching back
and forth; a short cross-fade avoids clicks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    """A row per channel, full scale at 1."""

SILENT = 10**-7.5
"""Mean power below which a recording is inaudible: -75 dB of full scale."""
_LARGEST = 1e12  # beyond all integers of 32 bits that were written as floats, and far from overflow
_CANCELLED, _RECOVERED = 10**-1.2, 10**-0.6  # power of a mix against that of its loudest channel
_LOUDER = 4.0  # how much more power another channel needs to replace the chosen one
_UNREADABLE_PLANES = 8  # PyAV reads out of bounds in planar frames with this many channels or more


def samples_of(frame: av.AudioFrame) -> Samples:
    """Return the samples of a decoded frame."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= _UNREADABLE_PLANES:
        (frame,) = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    raw = frame.to_ndarray()
    rows = raw if frame.format.is_planar else raw.reshape(-1, channels).T
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return rows.astype(np.float32, copy=False)
    full_scale = np.float32(2.0 ** (8 * raw.dtype.itemsize - 1))
    numbers = rows.astype(np.float32)
    return np.asarray(numbers / full_scale - 1 if raw.dtype.kind == "u" else numbers / full_scale, np.float32)


def sanitized(samples: Samples, limit: float = _LARGEST) -> Samples:
    """Return samples that are finite and at most ``limit``; floating-point files may contain anything."""
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.clip(finite, -limit, limit), np.float32)


def format_of(frame: av.AudioFrame) -> tuple[str, str, int]:
    """Return what is constant within a segment: the sample format, the layout and the sample rate."""
    return frame.format.name, frame.layout.name, frame.sample_rate


class StereoDownmix:
    """Mixes more than two channels to two, as FFmpeg does it for loudspeakers.

    FFmpeg only does so for layouts that say what each channel is for. For others, ``is_possible`` becomes false.
    """

    def __init__(self, rate: int) -> None:
        self._resampler: av.AudioResampler | None = av.AudioResampler("flt", "stereo", rate)

    @property
    def is_possible(self) -> bool:
        """Whether FFmpeg knows the layout, as far as is known yet."""
        return self._resampler is not None

    def add(self, frame: av.AudioFrame | None) -> list[Samples]:
        """Add a frame, or ``None`` at the end; return the stereo samples that are ready."""
        if self._resampler is None:
            return []
        try:
            return [samples_of(part) for part in self._resampler.resample(frame)]
        except FFmpegError:
            self._resampler = None
            return []


class Segment:
    """Resamples and mixes a run of frames of the same format.

    Args:
        frame: The first frame.
        rate: Samples per second of the result.
        rows: Channels of the result, 1 or 2.
        loudspeakers: Whether to mix more than two channels by their loudspeakers; by default, all count the same.
        side: The only channel of a stereo recording that has sound.
    """

    def __init__(
        self, frame: av.AudioFrame, rate: int, rows: int, *, loudspeakers: bool = False, side: int | None = None
    ) -> None:
        self._format = format_of(frame)
        self._channels = frame.layout.nb_channels
        self._rows = rows
        self._resampler = av.AudioResampler("flt", frame.layout, rate)
        self._downmix = StereoDownmix(rate) if loudspeakers and self._channels > 2 else None
        self._mixer = Mixer(rate, rows, side)

    def fits(self, frame: av.AudioFrame) -> bool:
        """Whether a frame has the format of this segment."""
        return format_of(frame) == self._format

    def add(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        """Add a frame, or ``None`` at the end; yield the samples that are ready."""
        parts = [samples_of(part) for part in self._resampler.resample(frame)]
        if self._channels == 1:
            for part in parts:
                yield part if self._rows == 1 else np.repeat(part, self._rows, axis=0)
            return
        yield from self._mixer.add(parts, self._downmix.add(frame) if self._downmix else [])
        if frame is None:
            yield from self._mixer.flush()


class Mixer:
    """Mixes channels, and replaces the mix by the loudest channel where they cancel each other out.

    Args:
        rate: Samples per second.
        rows: Channels of the result, 1 or 2.
        side: The only channel of a stereo recording that has sound.
    """

    def __init__(self, rate: int, rows: int, side: int | None = None) -> None:
        self._window, self._fade = rate // 4, rate // 200
        self._rows, self._side = rows, side
        self._channels: list[Samples] = []
        self._downmixes: list[Samples] = []
        self._pending = 0  # samples
        self._replacement: int | None = None  # the channel that currently replaces the mix

    def add(self, channels: list[Samples], downmixes: list[Samples]) -> Iterator[Samples]:
        """Add samples of all channels, and FFmpeg's mix of them if there is one; yield the windows that are complete."""
        self._channels += channels
        self._downmixes += downmixes
        self._pending += sum(part.shape[1] for part in channels)
        if self._pending >= self._window:
            yield from self._mix_windows(self._pending // self._window * self._window)

    def flush(self) -> Iterator[Samples]:
        """Yield the rest."""
        if self._pending:
            yield from self._mix_windows(self._pending)

    def _mix_windows(self, count: int) -> Iterator[Samples]:
        channels = np.concatenate(self._channels, axis=1)
        downmix = np.concatenate(self._downmixes, axis=1) if self._downmixes else None
        for start in range(0, count, self._window):
            window = slice(start, min(start + self._window, count))
            part = sanitized(channels[:, window])
            yield self._replace(self._mix(part, None if downmix is None else sanitized(downmix[:, window])), part)
        self._channels, self._pending = [channels[:, count:]], self._pending - count
        self._downmixes = [] if downmix is None else [downmix[:, count:]]

    def _mix(self, channels: Samples, downmix: Samples | None) -> Samples:
        if downmix is None and len(channels) == 2:
            downmix = channels
        if downmix is None or (self._rows == 1 and self._side is None):
            # Not the sum: it would exceed full scale.
            mixed: Samples = (channels if downmix is None else downmix).mean(axis=0, keepdims=True)
        elif self._side is not None:
            mixed = downmix[self._side : self._side + 1]
        else:
            mixed = downmix
        return mixed if len(mixed) == self._rows else np.repeat(mixed, self._rows, axis=0)

    def _replace(self, mix: Samples, channels: Samples) -> Samples:
        """Return the mix, or the channel that replaces it."""
        before, self._replacement = self._replacement, self._choose_replacement(mix, channels)
        if before == self._replacement is None:
            return mix
        out = _channel_or_mix(mix, channels, self._replacement)
        if before != self._replacement:
            ramp = np.linspace(0, 1, min(self._fade, mix.shape[1]), dtype=np.float32)
            count = len(ramp)
            out[:, :count] = out[:, :count] * ramp + _channel_or_mix(mix, channels, before)[:, :count] * (1 - ramp)
        return out

    def _choose_replacement(self, mix: Samples, channels: Samples) -> int | None:
        powers = channels.var(axis=1, dtype=np.float64)
        loudest = int(powers.argmax())
        if not powers[loudest] > SILENT:
            return self._replacement
        relative = mix.mean(axis=0).var(dtype=np.float64) / powers[loudest]
        if relative > (_CANCELLED if self._replacement is None else _RECOVERED):
            return None
        if self._replacement is None or powers[self._replacement] * _LOUDER < powers[loudest]:
            return loudest
        return self._replacement


def _channel_or_mix(mix: Samples, channels: Samples, channel: int | None) -> Samples:
    return mix.copy() if channel is None else np.repeat(channels[channel : channel + 1], len(mix), axis=0)
