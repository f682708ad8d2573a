"""Resamples recordings and mixes their channels down to one or two, so that no voice is cancelled out or becomes too quiet.

Channels cancel each other out if one has the inverse polarity of another (a miswired plug, a balanced cable). And if only one of six channels
has a voice, their mean is 16 dB quieter than the voice. So ``Mixer`` compares the mix with the loudest channel every quarter of a second.
If the mix is 12 dB below that channel, the channel replaces it, until the mix is within 6 dB again. The hysteresis keeps it from switching
back and forth; a short cross-fade avoids clicks.
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
_MAX_SAMPLE = 1e12  # larger than any 32-bit integer stored as a float, far below overflow
_CANCELLED, _RECOVERED = 10**-1.2, 10**-0.6  # power ratio mix : loudest channel; -12 dB, -6 dB
_SWITCH_FACTOR = 4.0  # another channel replaces the chosen one if it has more than this many times its power
_UNREADABLE_PLANES = 8  # PyAV reads out of bounds in planar frames with this many channels or more


def samples_of(frame: av.AudioFrame) -> Samples:
    """Return the samples of a decoded frame."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= _UNREADABLE_PLANES:
        (frame,) = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    raw = frame.to_ndarray()
    samples = raw if frame.format.is_planar else raw.reshape(-1, channels).T
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    full_scale = np.float32(2.0 ** (8 * raw.dtype.itemsize - 1))
    numbers = samples.astype(np.float32)
    return np.asarray(numbers / full_scale - 1 if raw.dtype.kind == "u" else numbers / full_scale, np.float32)


def sanitized(samples: Samples, limit: float = _MAX_SAMPLE) -> Samples:
    """Return samples that are finite and at most ``limit``; floating-point files may contain anything."""
    if np.abs(samples).max(initial=0.0) <= limit:  # false if one is not a number
        return samples
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.clip(finite, -limit, limit), np.float32)


def format_of(frame: av.AudioFrame) -> tuple[str, str, int]:
    """Return the sample format, the channel layout and the sample rate, which are constant within a segment."""
    return frame.format.name, frame.layout.name, frame.sample_rate


class StereoDownmix:
    """Mixes more than two channels to two, with FFmpeg's weights for surround layouts.

    FFmpeg rejects layouts that do not name the loudspeaker of each channel; ``is_possible`` is then false.
    """

    def __init__(self, rate: int) -> None:
        self._resampler: av.AudioResampler | None = av.AudioResampler("flt", "stereo", rate)

    @property
    def is_possible(self) -> bool:
        """False once FFmpeg has rejected the layout."""
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
        out_channels: Channels of the result, 1 or 2.
        loudspeakers: Whether to weight more than two channels by loudspeaker position instead of equally.
        only_side: The only channel of a stereo recording that has sound.
    """

    def __init__(
        self,
        frame: av.AudioFrame,
        rate: int,
        out_channels: int,
        *,
        loudspeakers: bool = False,
        only_side: int | None = None,
    ) -> None:
        self._format = format_of(frame)
        self._channels = frame.layout.nb_channels
        self._out_channels = out_channels
        self._resampler = av.AudioResampler("flt", frame.layout, rate)
        self._downmix = StereoDownmix(rate) if loudspeakers and self._channels > 2 else None
        self._mixer = Mixer(rate, out_channels, only_side)

    def fits(self, frame: av.AudioFrame) -> bool:
        """Whether a frame has the format of this segment."""
        return format_of(frame) == self._format

    def add(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        """Add a frame, or ``None`` at the end; yield the samples that are ready."""
        parts = [samples_of(part) for part in self._resampler.resample(frame)]
        if self._channels == 1:
            for part in parts:
                yield part if self._out_channels == 1 else np.repeat(part, self._out_channels, axis=0)
            return
        yield from self._mixer.add(parts, self._downmix.add(frame) if self._downmix else [])
        if frame is None:
            yield from self._mixer.flush()


class Mixer:
    """Mixes channels, and replaces the mix by the loudest channel where they cancel each other out.

    Args:
        rate: Samples per second.
        out_channels: Channels of the result, 1 or 2.
        only_side: The only channel of a stereo recording that has sound.
    """

    def __init__(self, rate: int, out_channels: int, only_side: int | None = None) -> None:
        self._window, self._fade = rate // 4, rate // 200
        self._out_channels, self._only_side = out_channels, only_side
        self._channel_parts: list[Samples] = []
        self._downmix_parts: list[Samples] = []
        self._pending = 0  # samples
        self._replacement: int | None = None  # the channel that currently replaces the mix

    def add(self, channel_parts: list[Samples], downmix_parts: list[Samples]) -> Iterator[Samples]:
        """Add samples of all channels, and FFmpeg's mix of them if there is one; yield the windows that are complete."""
        self._channel_parts += channel_parts
        self._downmix_parts += downmix_parts
        self._pending += sum(part.shape[1] for part in channel_parts)
        if self._pending >= self._window:
            yield from self._mix_windows(self._pending // self._window * self._window)

    def flush(self) -> Iterator[Samples]:
        """Yield the remaining samples."""
        if self._pending:
            yield from self._mix_windows(self._pending)

    def _mix_windows(self, count: int) -> Iterator[Samples]:
        channels = np.concatenate(self._channel_parts, axis=1)
        downmix = np.concatenate(self._downmix_parts, axis=1) if self._downmix_parts else None
        for start in range(0, count, self._window):
            window = slice(start, min(start + self._window, count))
            part = sanitized(channels[:, window])
            mix = self._mix(part, None if downmix is None else sanitized(downmix[:, window]))
            yield self._mix_or_channel(mix, part)
        self._channel_parts, self._pending = [channels[:, count:]], self._pending - count
        self._downmix_parts = [] if downmix is None else [downmix[:, count:]]

    def _mix(self, channels: Samples, downmix: Samples | None) -> Samples:
        if downmix is None and len(channels) == 2:
            downmix = channels
        if downmix is None or (self._out_channels == 1 and self._only_side is None):
            # Not the sum: it would exceed full scale.
            mix: Samples = (channels if downmix is None else downmix).mean(axis=0, keepdims=True)
        elif self._only_side is not None:
            mix = downmix[self._only_side : self._only_side + 1]
        else:
            mix = downmix
        return mix if len(mix) == self._out_channels else np.repeat(mix, self._out_channels, axis=0)

    def _mix_or_channel(self, mix: Samples, channels: Samples) -> Samples:
        """Return the mix, or the channel that replaces it."""
        before, self._replacement = self._replacement, self._choose_replacement(mix, channels)
        if before is None and self._replacement is None:
            return mix
        out = _copy_of(mix, channels, self._replacement)
        if before != self._replacement:
            ramp = np.linspace(0, 1, min(self._fade, mix.shape[1]), dtype=np.float32)
            count = len(ramp)
            out[:, :count] = out[:, :count] * ramp + _copy_of(mix, channels, before)[:, :count] * (1 - ramp)
        return out

    def _choose_replacement(self, mix: Samples, channels: Samples) -> int | None:
        powers = channels.var(axis=1, dtype=np.float64)
        loudest = int(powers.argmax())
        if not powers[loudest] > SILENT:
            return self._replacement
        relative = mix.mean(axis=0).var(dtype=np.float64) / powers[loudest]
        if relative > (_CANCELLED if self._replacement is None else _RECOVERED):
            return None
        if self._replacement is None or powers[self._replacement] * _SWITCH_FACTOR < powers[loudest]:
            return loudest
        return self._replacement


def _copy_of(mix: Samples, channels: Samples, channel: int | None) -> Samples:
    """Copy a channel, or the mix if ``channel`` is ``None``."""
    return mix.copy() if channel is None else np.repeat(channels[channel : channel + 1], len(mix), axis=0)
