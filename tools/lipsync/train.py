"""Trains the lip-sync network on the data of speech.py and recordings.py, and writes its weights.

    python tools/lipsync/train.py CACHE a2v/engine/lipsync.npz

The voices and synthesizers for score.py are held out; ``--without`` holds out more. ``--start`` continues from weights, for example those
of the package.

Each recording is used as it is, and augmented in the time domain (``_augmented``: pace, microphone, room, noise). Batches are windows of
random rows, augmented once more in the frequency domain (``Data._augmented``). Several processes train copies of the network and average
them every few steps.
"""

from __future__ import annotations

import argparse
import math
import pickle
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import soxr
import torch
from held_out import is_held_out
from phones import OPENNESS, mouths, rows
from scipy.signal import butter, fftconvolve, firwin2, lfilter, sosfilt
from score import READERS, SYLLABLE, compare, padded, spoken, truth
from speech import read
from torch import Tensor, distributed, multiprocessing, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from a2v.engine.face_pose import VISEMES
from a2v.engine.lipsync import BANDS, FEATURES, Network, VoiceProfile, features, mel_spectrum, voice_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from phones import Mouths
    from voices import Speech

    Sound = NDArray[np.float32]

_RATE = 16_000
_BATCH = 24
_WINDOW = 384  # rows per window
_DILATIONS = (1, 2, 4, 8, 1, 2, 4)
_TAPS = 5
_DROPOUT = 0.12
_AVERAGE_STEPS = 20
_CHECKPOINT_STEPS = 200
_CLOSURE_WEIGHT = 0.7  # of the loss for closed lips, relative to that for visemes
_OPENING_WEIGHT = 3.0  # of the loss for the opening of the mouth
_CLOSED = VISEMES.index("A")
_MIN_PRECISION = 0.73
"""The minimum precision of closures (p, b, m), for readers who are easier than most: a missed closure looks worse than a superfluous one."""
_PAIRS = 3  # pairs of rows in the first layer
_VOWELS = {"B": (300, 2300), "C": (600, 1750), "D": (800, 1200), "E": (500, 850), "F": (310, 750)}  # Hz
_SHARES = {
    "real": 0.49,
    "kokoro": 0.14,
    "espeak": 0.11,
    "festival": 0.09,
    "vowel": 0.09,
    "hibari": 0.06,
    "silence": 0.02,
}
"""Share of each family in the windows. Real voices matter most. With fewer vowels, sung ones are taken for silence."""
_MOST_OF_ONE = 0.1
"""A speaker with more than this share of the real speech is drawn as if they had just this much."""


class Example(NamedTuple):
    """The spectrum of a recording before normalization, with the true visemes."""

    voice: str
    bands: NDArray[np.float16]
    level: NDArray[np.float32]
    labels: NDArray[np.uint8]


def load_examples(path: Path, copies: int, without: list[str]) -> list[Example]:
    """Return the speeches of a file, unchanged and in ``copies`` augmented versions; cached in the folder ``heard`` beside it."""
    kept = path.parent / "heard" / f"{path.stem}-{copies}-{'-'.join(without).replace('/', '_')}.pickle"
    if kept.exists() and kept.stat().st_mtime > path.stat().st_mtime:
        return list(pickle.loads(kept.read_bytes()))
    random = np.random.default_rng(zlib.crc32(path.name.encode()))
    out = []
    for speech in read(path):
        if is_held_out(speech.voice, speech.text, without):
            continue
        sound, said = _padded(speech, random)
        for copy in range(copies + 1):
            one, when = (sound, said) if not copy else _augmented(sound, said, random)
            bands, level = mel_spectrum(one)
            out.append(Example(speech.voice, bands, level, rows(when, len(level))))
    kept.write_bytes(pickle.dumps(out))
    return out


def silences(count: int) -> list[Example]:
    """Generate recordings without speech: noise of all colours and levels."""
    random = np.random.default_rng(5)
    out = []
    for _ in range(count):
        noise = random.normal(0, 1, int(random.uniform(2, 6) * _RATE))
        if random.random() < 0.7:
            noise = lfilter([1], [1, -random.uniform(0.3, 0.98)], noise)
        if random.random() < 0.5:
            noise *= 1 + random.uniform(0.2, 0.9) * np.sin(np.arange(len(noise)) / _RATE * random.uniform(0.2, 8))
        noise *= 10 ** random.uniform(-5, -1.3) / noise.std()
        bands, level = mel_spectrum(np.asarray(noise, np.float32))
        out.append(Example("silence", bands, level, np.zeros(len(level), np.uint8)))
    return out


def vowels(count: int) -> list[Example]:
    """Generate long vowels, as in singing, from a source and two formants, with pauses and some noise."""
    random = np.random.default_rng(6)
    out = []
    for _ in range(count):
        parts, labels = [], []
        for _ in range(int(random.integers(1, 5))):
            pause, length = int(random.uniform(0.1, 0.9) * 100), int(random.uniform(0.2, 3) * 100)
            name = str(random.choice(list(_VOWELS)))
            parts += [np.zeros(pause * _RATE // 100), _vowel(length * _RATE // 100, _VOWELS[name], random)]
            labels += [np.zeros(pause, np.uint8), np.full(length, VISEMES.index(name), np.uint8)]
        sound = np.concatenate([*parts, np.zeros(_RATE // 2)])
        sound += random.normal(0, 10 ** random.uniform(-5, -2.3), len(sound))
        bands, level = mel_spectrum(np.asarray(sound * 10 ** random.uniform(-1, 0.3), np.float32))
        out.append(Example("vowel", bands, level, np.concatenate([*labels, np.zeros(50, np.uint8)])))
    return out


def _vowel(count: int, formants: tuple[int, int], random: np.random.Generator) -> NDArray[np.float64]:
    size, pitch, broad = random.uniform(0.9, 1.2), random.uniform(90, 260), random.uniform(50, 120)
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.01 * np.sin(np.arange(count) / _RATE * random.uniform(5, 40)))) / _RATE
    out = np.zeros(count)
    for k in range(1, int(5000 / pitch)):
        heights = ((formants[0] * size, 1.0), (formants[1] * size, 0.3), (2700 * size, 0.03))
        out += sum(share / (1 + ((k * pitch - at) / broad) ** 2) for at, share in heights) * np.sin(k * phase + k * k)
    edge = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / random.uniform(1, 500))
    return np.asarray(0.3 * edge * out / np.abs(out).max())


def _padded(speech: Speech, random: np.random.Generator) -> tuple[Sound, Mouths]:
    """Add a pause before and after, and the hiss of a microphone."""
    before, behind = random.uniform(0.02, 0.9, 2)
    sound = np.pad(speech.samples.astype(np.float32) / 32768, (int(before * _RATE), int(behind * _RATE)))
    hiss = random.normal(0, 10 ** random.uniform(-5, -3.2) if random.random() < 0.9 else 0, len(sound))
    return np.asarray(sound + hiss, np.float32), [(a + before, b + before, name) for a, b, name in mouths(speech)]


def _augmented(sound: Sound, said: Mouths, random: np.random.Generator) -> tuple[Sound, Mouths]:
    """Vary the pace and the vocal tract, the microphone, the room, the noise, the line and the gain."""
    if random.random() < 0.75:
        pace = random.uniform(0.82, 1.22)
        sound, said = soxr.resample(sound, _RATE * pace, _RATE, "LQ"), [(a / pace, b / pace, v) for a, b, v in said]
    if random.random() < 0.7:
        gains = 10 ** (random.uniform(-8, 8, 7) / 20)
        sound = fftconvolve(sound, firwin2(129, [0, 0.05, 0.12, 0.25, 0.45, 0.7, 1], gains), "same")
    if random.random() < 0.45:
        sound = _in_a_room(sound, random)
    if random.random() < 0.3:
        low, high = random.choice([20, 80, 250]), random.uniform(3300, 7000)
        sound = sosfilt(butter(4, (low, high), "bandpass", fs=_RATE, output="sos"), sound)
    if random.random() < 0.2:  # a telephone line with 8-bit companding
        peak = np.abs(sound).max() + 1e-9
        companded = np.round(np.sign(sound) * np.log1p(255 * np.abs(sound) / peak) / np.log(256) * 127) / 127
        sound = peak * np.sign(companded) * (256 ** np.abs(companded) - 1) / 255
    if random.random() < 0.6:
        sound = sound + _noise(sound, random)
    if random.random() < 0.15:
        sound = np.clip(sound, -0.5 * np.abs(sound).max(), 0.5 * np.abs(sound).max())
    return np.asarray(sound * 10 ** random.uniform(-1.2, 0.3), np.float32), said


def _in_a_room(sound: Sound, random: np.random.Generator) -> Sound:
    length = int(random.uniform(0.05, 0.4) * _RATE)
    echo = random.normal(0, 1, length) * np.exp(-6.9 * np.arange(length) / length)
    echo *= random.uniform(0.1, 0.5) / np.sqrt((echo**2).sum())
    echo[0] = 1
    return np.asarray(fftconvolve(sound, echo)[: len(sound)], np.float32)


def _noise(sound: Sound, random: np.random.Generator) -> Sound:
    speech = sound[np.abs(sound) > 0.02 * np.abs(sound).max()].std()
    noise = random.normal(0, 1, len(sound))
    if random.random() < 0.7:
        noise = lfilter([1], [1, -random.uniform(0.5, 0.98)], noise)
    if random.random() < 0.3:  # fluctuating
        noise *= 1 + 0.8 * np.sin(np.arange(len(noise)) / _RATE * random.uniform(0.5, 12))
    return np.asarray(noise / noise.std() * speech * 10 ** (-random.uniform(8, 40) / 20), np.float32)


class Net(nn.Module):
    """The network in PyTorch; ``weights`` converts it for ``a2v.engine.lipsync``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(2 * FEATURES, channels, _PAIRS, padding=_PAIRS // 2)
        self.norm = nn.BatchNorm1d(channels)
        self.layers = nn.ModuleList(_Layer(channels, dilation) for dilation in _DILATIONS)
        self.leave = nn.Linear(channels, 2 * len(VISEMES))

    def forward(self, heard: Tensor) -> Tensor:
        """Return scores (batch, rows, visemes) for features (batch, rows, features)."""
        batch, count, _ = heard.shape
        entered = self.enter(heard.reshape(batch, count // 2, -1).transpose(1, 2)).transpose(1, 2)
        state = self.norm(entered.flatten(0, 1)).relu().view(batch, count // 2, -1)
        for layer in self.layers:
            state = layer(state)
        scores: Tensor = self.leave(state)
        return scores.reshape(batch, count, len(VISEMES))

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by name, with batch normalization folded in."""
        enter, bias = _folded(self.enter.weight.permute(2, 1, 0).flatten(0, 1), self.enter.bias, self.norm)
        out = {"reaches": torch.tensor(_DILATIONS), "enter": enter, "enter_bias": bias}
        for i, layer in enumerate(self.layers):
            out[f"taps_{i}"], out[f"taps_bias_{i}"] = layer.taps, layer.taps_bias
            out[f"mix_{i}"], out[f"mix_bias_{i}"] = _folded(layer.mix.weight.T, layer.mix.bias, layer.norm)
            out[f"add_{i}"], out[f"add_bias_{i}"] = layer.add.weight.T, layer.add.bias
        out["leave"], out["leave_bias"] = self.leave.weight.T, self.leave.bias
        return out


class _Layer(nn.Module):
    """A layer as in ``a2v.engine.lipsync``."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Parameter(torch.randn(_TAPS, channels) * (2 / _TAPS) ** 0.5)
        self.taps_bias = nn.Parameter(torch.zeros(channels))
        self.mix = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.add = nn.Linear(channels, channels)

    def forward(self, state: Tensor) -> Tensor:
        convolved = _Taps.apply(state, self.taps, self.taps_bias, self.dilation)
        mixed = self.norm(self.mix(convolved).flatten(0, 1)).relu().view_as(state)
        mixed = _with_dropout(mixed) if self.training else mixed
        out: Tensor = state + self.add(mixed)
        return out


class _Taps(torch.autograd.Function):
    """A depthwise dilated convolution; faster than torch's, and than five shifted products that autograd records."""

    @staticmethod
    def forward(context: Any, state: Tensor, taps: Tensor, bias: Tensor, dilation: int) -> Tensor:
        """Return the convolution; its length is that of the input."""
        count, side = state.shape[1], dilation * (_TAPS // 2)
        padded = nn.functional.pad(state, (0, 0, side, side))
        context.save_for_backward(padded, taps)
        context.dilation = dilation
        out = padded[:, :count] * taps[0] + bias
        for i in range(1, _TAPS):
            out.addcmul_(padded[:, i * dilation : i * dilation + count], taps[i])
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of the state, the taps and the bias."""
        (padded, taps), (gradient,), dilation = context.saved_tensors, gradients, context.dilation
        count, side = gradient.shape[1], dilation * (_TAPS // 2)
        of_state, of_taps = torch.zeros_like(padded), []
        for i in range(_TAPS):
            part = slice(i * dilation, i * dilation + count)
            of_state[:, part].addcmul_(gradient, taps[i])
            of_taps.append((padded[:, part] * gradient).sum((0, 1)))
        return of_state[:, side : side + count], torch.stack(of_taps), gradient.sum((0, 1)), None


class Continued(nn.Module):
    """A network that continues from weights of ``a2v.engine.lipsync``, in which batch normalization is folded."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self._reaches = [int(reach) for reach in weights["reaches"]]
        self._values = nn.ParameterDict(
            {
                name: nn.Parameter(torch.from_numpy(value.astype(np.float32)))
                for name, value in weights.items()
                if name not in ("reaches", "usual")
            }
        )

    def forward(self, heard: Tensor) -> Tensor:
        """Return scores (batch, rows, visemes) for features (batch, rows, features)."""
        batch, count, _ = heard.shape
        of = self._values
        pairs = nn.functional.pad(heard.reshape(batch, count // 2, -1), (0, 0, _PAIRS // 2, _PAIRS // 2))
        near = torch.cat([pairs[:, i : i + count // 2] for i in range(_PAIRS)], 2)
        state = (near @ of["enter"] + of["enter_bias"]).relu()
        for i, reach in enumerate(self._reaches):
            convolved = _Taps.apply(state, of[f"taps_{i}"], of[f"taps_bias_{i}"], reach)
            mixed = (convolved @ of[f"mix_{i}"] + of[f"mix_bias_{i}"]).relu()
            mixed = _with_dropout(mixed) if self.training else mixed
            state = state + mixed @ of[f"add_{i}"] + of[f"add_bias_{i}"]
        scores: Tensor = state @ of["leave"] + of["leave_bias"]
        return scores.reshape(batch, count, len(VISEMES))

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        return {"reaches": torch.tensor(self._reaches), **self._values}


def widened(weights: Mapping[str, NDArray[np.float32]], channels: int) -> dict[str, NDArray[np.float32]]:
    """Add channels to weights of ``a2v.engine.lipsync``. The output is the same, as the existing channels ignore the new ones at first."""
    old = len(weights["leave"])
    random = np.random.default_rng(7)
    out = {}
    for name, value in weights.items():
        new = value.astype(np.float32)
        if name.startswith(("mix_", "add_", "leave")) and new.ndim == 2:  # an input per channel
            new = np.pad(new, ((0, channels - old), (0, 0)))
        if value.shape[-1] == old:
            more = random.normal(0, value.std() if new.ndim == 2 else 1e-3, (*new.shape[:-1], channels - old))
            new = np.concatenate([new, more.astype(np.float32)], axis=-1)
        out[name] = new
    return out


def _with_dropout(mixed: Tensor) -> Tensor:
    """Drop whole channels of each window."""
    return mixed * (torch.rand(len(mixed), 1, mixed.shape[2]) > _DROPOUT) / (1 - _DROPOUT)


def _folded(weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * scale, (bias - norm.running_mean) * scale + norm.bias


class Data:
    """The training data, from which batches of random windows are drawn."""

    def __init__(self, heard: list[Example], usual: Sound | None = None) -> None:
        voices = [voice_profile(h.bands, h.level, np.zeros(BANDS, np.float32)) for h in heard]
        self.usual = np.asarray(np.mean([v.bands for v in voices], axis=0) if usual is None else usual, np.float32)
        self._pieces = [
            (features(h.bands, h.level, _with_typical(v, h.level, self.usual)).astype(np.float16), h.labels)
            for h, v in zip(heard, voices, strict=True)
        ]
        length = np.array([len(labels) for _, labels in self._pieces])
        chance = _chances(np.array([h.voice for h in heard]), length)
        self._chance = np.cumsum(chance / chance.sum())
        self.rows = int(length.sum())
        counts = np.bincount(np.concatenate([labels for _, labels in self._pieces]), minlength=len(VISEMES))
        weight = (counts.sum() / counts) ** 0.2
        self.weight = torch.tensor(weight / (weight * counts).sum() * counts.sum(), dtype=torch.float32)

    def shuffle(self, seed: list[int]) -> None:
        """Start a new series of batches."""
        self._random = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return features and labels; the label is -100 in padding."""
        heard = np.zeros((size, _WINDOW, FEATURES), np.float32)
        labels = np.full((size, _WINDOW), -100, np.int64)
        for i, piece in enumerate(np.searchsorted(self._chance, self._random.random(size))):
            rows, right = self._pieces[piece]
            first = int(self._random.integers(0, max(1, len(right) - _WINDOW + 1)))
            part = rows[first : first + _WINDOW].astype(np.float32)
            heard[i, : len(part)], labels[i, : len(part)] = self._augmented(part), right[first : first + _WINDOW]
        return torch.from_numpy(heard), torch.from_numpy(labels)

    def _augmented(self, rows: Sound) -> Sound:
        """Shift formants by warping the mel axis, vary the tilt, and mask bands and rows."""
        random = self._random
        bands = rows[:, :BANDS]
        if random.random() < 0.75:
            at = np.clip(np.arange(BANDS) * random.uniform(0.83, 1.2) + random.uniform(-1.5, 1.5), 0, BANDS - 1.001)
            low, share = at.astype(int), np.asarray(at % 1, np.float32)
            bands = bands[:, low] * (1 - share) + bands[:, low + 1] * share
        bands = bands + random.normal(0, 0.12) + np.linspace(-1, 1, BANDS, dtype=np.float32) * random.normal(0, 0.2)
        if random.random() < 0.5:
            first = random.integers(0, BANDS - 3)
            bands[:, first : first + random.integers(1, 8)] = 0
        if random.random() < 0.2:
            first = random.integers(0, len(rows))
            bands[first : first + random.integers(1, 5)] = 0
        rows[:, :BANDS] = bands
        return rows


def _chances(voices: NDArray[np.str_], rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return how often each recording is drawn, given its voice and length."""
    chance = rows.astype(float)
    families = np.array([voice.partition("/")[0] for voice in voices])
    most = _MOST_OF_ONE * rows[families == "real"].sum()
    for voice in set(voices[families == "real"]):
        chance[voices == voice] *= min(1.0, most / rows[voices == voice].sum())
    for family in set(families):
        chance[families == family] *= _SHARES[family] / chance[families == family].sum()
    return chance


def _with_typical(own: VoiceProfile, level: Sound, usual: Sound) -> VoiceProfile:
    """Return the profile that ``lipsync.voice_profile`` measures, once the typical voice is known."""
    count = int((level > own.loud - 30).sum())
    return own._replace(bands=np.asarray(own.bands + usual * 30 / (count + 30), np.float32))


def train(rank: int, data: Data, net: Net | Continued, given: argparse.Namespace) -> Net | Continued:
    """Train for a number of steps or minutes; the learning rate falls towards whichever ends first.

    Each process draws batches of its own; every few steps, the networks of all processes are averaged.
    """
    torch.set_num_threads(1)  # two threads per process would mostly wait for each other
    torch.manual_seed(rank)
    data.shuffle([rank, zlib.crc32(given.resume.read_bytes()) if given.resume else 0])  # other batches after a resume
    slow = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=given.rate, weight_decay=0.01)
    began, mean, done, step = time.monotonic(), 0.0, 0.0, 0
    while done < 1:
        for group in optimiser.param_groups:
            group["lr"] = (
                given.rate * min(1.0, (step + 1) / 100) * (0.005 + 0.995 * (0.5 + 0.5 * math.cos(math.pi * done)))
            )
        heard, labels = data.batch(_BATCH)
        scores = net(heard)
        loss = _loss(scores.flatten(0, 1), labels.flatten(), data.weight)
        loss = loss + _OPENING_WEIGHT * _opening_loss(scores, labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        slow.update_parameters(net)
        mean = loss.item() if not step else 0.99 * mean + 0.01 * loss.item()
        if step % 100 == 0 and not rank:
            print(f"step {step}: loss {mean:.4f}, {time.monotonic() - began:.0f} s", flush=True)
        step += 1
        if step % _CHECKPOINT_STEPS == 0 and not rank:
            torch.save(slow.module.state_dict(), given.weights.with_suffix(".pt"))
        if step % _AVERAGE_STEPS == 0:
            done = _average(net, max(step / given.steps, (time.monotonic() - began) / 60 / given.minutes))
    best: Net | Continued = slow.module.eval()
    return best


def _loss(scores: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of the visemes plus that of closed lips, which are rare and noticed first."""
    visemes = nn.functional.cross_entropy(scores, labels, weight, label_smoothing=0.01)
    known, others = labels >= 0, torch.cat([scores[:, :_CLOSED], scores[:, _CLOSED + 1 :]], 1)
    closed = (scores[:, _CLOSED] - others.logsumexp(1))[known]
    lips = nn.functional.binary_cross_entropy_with_logits(closed, (labels[known] == _CLOSED).float())
    return visemes + _CLOSURE_WEIGHT * lips


def _opening_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean square error of the opening of the mouth, averaged over a syllable."""
    openness, syllable = (torch.tensor(values, dtype=torch.float32) for values in (OPENNESS, SYLLABLE))
    known = labels >= 0
    error = (scores.softmax(2) @ openness - openness[labels.clamp(min=0)]) * known
    error = nn.functional.conv1d(error[:, None], syllable[None, None], padding="same")
    return (error**2).sum() / known.sum()


def _average(net: nn.Module, done: float) -> float:
    """Replace the networks of all processes by their mean; return the mean progress."""
    values = [value for value in (*net.parameters(), *net.buffers()) if value.is_floating_point()]
    with torch.no_grad():
        together = torch.cat([torch.tensor([done]), *(value.flatten() for value in values)])
        distributed.all_reduce(together)
        together /= distributed.get_world_size()
        for value, new in zip(values, together[1:].split([value.numel() for value in values]), strict=True):
            value.copy_(new.view_as(value))
    return float(together[0])


def _work(rank: int, data: Data, net: Net | Continued, given: argparse.Namespace, meeting: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=given.processes)
    best = train(rank, data, net, given)
    if not rank:
        torch.save(best.state_dict(), given.weights.with_suffix(".pt"))


def closure_bias(network: Network, cache: Path, without: list[str]) -> float:
    """Return what to add to the score of closed lips, determined on real readers who are not used for anything else."""
    said = [speech for name, speech in spoken(cache, without, 300) if name == READERS]
    heard = [network.run(*mel_spectrum(padded(speech))) for speech in said]
    best = 0.0
    for more in np.arange(-2, 4, 0.1):
        lift = np.where(np.arange(len(VISEMES)) == _CLOSED, np.exp(more), 1).astype(np.float32)
        lifted = [likely * lift / (likely @ lift)[:, None] for likely in heard]
        counts = [compare(likely, truth(speech, len(likely))) for likely, speech in zip(lifted, said, strict=True)]
        closings, meant, closures, closed = (
            max(1, sum(getattr(c, name) for c in counts)) for name in ("closings", "meant", "closures", "closed")
        )
        print(f"closed lips + {more:.1f}: {closed / closures:.1%} closed, {meant / closings:.1%} meant", flush=True)
        if meant < _MIN_PRECISION * closings:
            break
        best = float(more)
    return best


def write(net: Net | Continued, usual: Sound, start: dict[str, Any] | None, given: argparse.Namespace) -> None:
    """Write the weights for ``a2v.engine.lipsync``."""
    weights = {name: value.detach().numpy() for name, value in net.eval().weights().items()} | {"usual": usual}
    if start:
        weights |= {
            name: (1 - given.kept) * value + given.kept * start[name].astype(np.float32)
            for name, value in weights.items()
            if name not in ("reaches", "usual")
        }
    more = closure_bias(Network(weights), given.cache, given.without)
    weights["leave_bias"] = weights["leave_bias"] + more * (np.arange(2 * len(VISEMES)) % len(VISEMES) == _CLOSED)
    rounded: dict[str, Any] = {name: _rounded(value) for name, value in weights.items()}
    with given.weights.open("wb") as file:
        np.savez_compressed(file, **rounded)


def _rounded(value: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to the precision of the file, 9 significant bits: float16 has 11, and those with zeros at the end compress better."""
    mantissa, exponent = np.frexp(value)
    return np.asarray(np.ldexp(np.round(mantissa * 512) / 512, exponent), np.float16)


def main() -> None:
    """Load the data, train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder with the speech")
    parser.add_argument("weights", type=Path, help="the file to write")
    parser.add_argument("--channels", type=int, default=192, help="with --start: at least as many as it has")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--minutes", type=float, default=600, help="the longest training")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--resume", type=Path, help="the .pt file of an earlier run to continue from")
    parser.add_argument("--start", type=Path, help="weights to continue from, such as those of the package")
    parser.add_argument(
        "--kept", type=float, default=0.2, help="share of the weights of --start in the result, against forgetting"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--copies", type=int, default=1, help="augmented versions of each sentence")
    parser.add_argument(
        "--without", action="append", default=[], help="a synthesizer, or synthesizer/voice, to hold out"
    )
    given = parser.parse_args()
    torch.manual_seed(1)
    (given.cache / "heard").mkdir(exist_ok=True)
    with ProcessPoolExecutor(given.processes) as pool:
        files = sorted(given.cache.glob("*-[0-9]*.npz"))
        heard = [
            h for part in pool.map(load_examples, files, repeat(given.copies), repeat(given.without)) for h in part
        ]
    heard += silences(300) + vowels(300)
    start = widened(np.load(given.start), given.channels) if given.start else None
    data = Data(heard, start["usual"] if start else None)
    del heard
    print(f"{data.rows / 6000:.0f} minutes", flush=True)
    net = Continued(start) if start else Net(given.channels)
    if given.resume:
        net.load_state_dict(torch.load(given.resume))
    with tempfile.TemporaryDirectory() as folder:
        arguments = (data, net, given, f"{folder}/meeting")
        multiprocessing.start_processes(_work, arguments, given.processes, start_method="fork")
    net.load_state_dict(torch.load(given.weights.with_suffix(".pt")))
    write(net, data.usual, start, given)


if __name__ == "__main__":
    main()
