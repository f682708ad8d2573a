"""Many channels become one or two without losing a voice on the way, and no louder than the AAC encoder can take.

Channels cancel each other where one is the other upside down (a swapped plug, a balanced cable), and a mix of six is quiet if
only one has a voice. So a mix is compared with its loudest channel every quarter of a second: where it is 12 dB below,
that channel takes its place, until the mix is within 6 dB again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

SILENT = 10**-7.5
"""Mean power of what nobody hears: -75 dB of full scale."""

_LOST, _BACK = 10**-1.2, 10**-0.6  # power of a mix against that of its loudest channel
_LOUDER = 4.0  # how much more power another channel must have to be chosen instead
_PLANES = 8  # PyAV reads beyond the planes of frames with so many channels
HUGE = 1e12
"""More than integers of 32 bits that were taken for floating-point numbers, and little enough to be worked with."""


def samples_of(frame: av.AudioFrame) -> Samples:
    """The samples of a decoded frame: a row for each channel, full scale at 1."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= _PLANES:
        (frame,) = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    raw = frame.to_ndarray()
    rows = raw if frame.format.is_planar else raw.reshape(-1, channels).T
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return rows.astype(np.float32, copy=False)
    full = np.float32(2.0 ** (8 * raw.dtype.itemsize - 1))
    numbers = rows.astype(np.float32)
    return np.asarray(numbers / full - 1 if raw.dtype.kind == "u" else numbers / full, np.float32)


def cleaned(samples: Samples, most: float) -> Samples:
    """Floating-point files may hold anything; what follows wants numbers that are finite, and no larger than ``most``."""
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.clip(finite, -most, most), np.float32)


class Segment:
    """Resamples and mixes the frames of a recording for as long as they have the same format.

    Args:
        frame: The first.
        rate: Samples a second that are wanted.
        rows: How many channels are wanted.
        loudspeakers: Whether more than two channels are mixed as the loudspeakers demand that they are meant for; otherwise
            all of them count the same.
        side: The one of two channels that alone has sound.
    """

    def __init__(
        self, frame: av.AudioFrame, rate: int, rows: int, *, loudspeakers: bool = False, side: int | None = None
    ) -> None:
        self._format = format_of(frame)
        self._channels = frame.layout.nb_channels
        self._rows, self._side = rows, side
        self._resampler = av.AudioResampler("flt", frame.layout, rate)
        self._downmix = StereoDownmix(rate) if loudspeakers and self._channels > 2 else None
        self._mixer = Mixer(rate, self._mixed)

    def fits(self, frame: av.AudioFrame) -> bool:
        """Whether a frame has that format."""
        return format_of(frame) == self._format

    def add(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        """Yield what is ready after a frame, or after the last one, the rest."""
        parts = [samples_of(part) for part in self._resampler.resample(frame)]
        if self._channels == 1:
            for part in parts:
                yield part if self._rows == 1 else np.repeat(part, self._rows, axis=0)
            return
        mixes = self._downmix.add(frame) if self._downmix else []
        yield from self._mixer.add(parts, mixes)
        if frame is None:
            yield from self._mixer.end()

    def _mixed(self, channels: Samples, mix: Samples | None) -> Samples:
        """The mix of all channels, in as many rows as are wanted."""
        if mix is None and self._channels == 2:
            mix = channels
        if mix is None or (self._rows == 1 and self._side is None):
            # Not the sum: it would exceed full scale.
            mixed: Samples = (channels if mix is None else mix).mean(axis=0, keepdims=True)
        elif self._side is not None:
            mixed = mix[self._side : self._side + 1]
        else:
            mixed = mix
        return mixed if len(mixed) == self._rows else np.repeat(mixed, self._rows, axis=0)


class StereoDownmix:
    """More than two channels as two, as FFmpeg does it, which knows where loudspeakers stand."""

    def __init__(self, rate: int) -> None:
        self._resampler: av.AudioResampler | None = av.AudioResampler("flt", "stereo", rate)

    @property
    def is_known(self) -> bool:
        """Whether FFmpeg knows what the channels are for."""
        return self._resampler is not None

    def add(self, frame: av.AudioFrame | None) -> list[Samples]:
        """Two rows of what is ready after a frame; none if it does not know."""
        if self._resampler is None:
            return []
        try:
            return [samples_of(part) for part in self._resampler.resample(frame)]
        except FFmpegError:
            self._resampler = None
            return []


def format_of(frame: av.AudioFrame) -> tuple[str, str, int]:
    """Return what must stay the same within a segment: sample format, layout and sample rate."""
    return frame.format.name, frame.layout.name, frame.sample_rate


class Mixer:
    """Puts the loudest channel in the place of a mix that has lost it.

    Args:
        rate: Samples a second.
        mixed: Makes the mix, of the channels and of what FFmpeg made of them, if anything.
    """

    def __init__(self, rate: int, mixed: Callable[[Samples, Samples | None], Samples]) -> None:
        self._window, self._fade = rate // 4, rate // 200
        self._mixed = mixed
        self._channels: list[Samples] = []
        self._mixes: list[Samples] = []
        self._waiting = 0
        self._chosen: int | None = None  # the channel that is taken instead of the mix

    def add(self, channels: list[Samples], mixes: list[Samples]) -> Iterator[Samples]:
        """Take some more of the channels and of FFmpeg's mix, if there is one; yield what became of whole windows."""
        self._channels += channels
        self._mixes += mixes
        self._waiting += sum(part.shape[1] for part in channels)
        if self._waiting >= self._window:
            yield from self._windows(self._waiting // self._window * self._window)

    def end(self) -> Iterator[Samples]:
        """Yield the rest."""
        if self._waiting:
            yield from self._windows(self._waiting)

    def _windows(self, count: int) -> Iterator[Samples]:
        channels = np.concatenate(self._channels, axis=1)
        mixes = np.concatenate(self._mixes, axis=1) if self._mixes else None
        for start in range(0, count, self._window):
            part = slice(start, min(start + self._window, count))
            own = cleaned(channels[:, part], HUGE)
            yield self._taken(self._mixed(own, None if mixes is None else cleaned(mixes[:, part], HUGE)), own)
        self._channels, self._waiting = [channels[:, count:]], self._waiting - count
        self._mixes = [] if mixes is None else [mixes[:, count:]]

    def _taken(self, mix: Samples, channels: Samples) -> Samples:
        before, self._chosen = self._chosen, self._choose(mix, channels)
        if before == self._chosen is None:
            return mix
        out = _channel(mix, channels, self._chosen)
        if before != self._chosen:
            # No click where one takes the place of the other.
            ramp = np.linspace(0, 1, min(self._fade, mix.shape[1]), dtype=np.float32)
            count = len(ramp)
            out[:, :count] = out[:, :count] * ramp + _channel(mix, channels, before)[:, :count] * (1 - ramp)
        return out

    def _choose(self, mix: Samples, channels: Samples) -> int | None:
        powers = channels.var(axis=1, dtype=np.float64)
        loudest = int(powers.argmax())
        if not powers[loudest] > SILENT:
            return self._chosen
        share = mix.mean(axis=0).var(dtype=np.float64) / powers[loudest]
        if share > (_LOST if self._chosen is None else _BACK):
            return None
        if self._chosen is None or powers[self._chosen] * _LOUDER < powers[loudest]:
            return loudest
        return self._chosen


def _channel(mix: Samples, channels: Samples, chosen: int | None) -> Samples:
    return mix.copy() if chosen is None else np.repeat(channels[chosen : chosen + 1], len(mix), axis=0)
