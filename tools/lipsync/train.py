"""Trains the lip-sync net on the speech that speech.py and recordings.py made, and writes its weights.

    python tools/lipsync/train.py CACHE a2v/engine/lipsync.npz

Leaves out the voices and synthesisers that score.py tests with, so that they stay unheard; ``--without`` leaves out others.
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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soxr
import torch
from held_out import is_held_out
from phones import mouths, rows
from scipy.signal import butter, fftconvolve, firwin2, lfilter, sosfilt
from score import compare, padded, spoken, truth
from speech import read
from torch import Tensor, distributed, multiprocessing, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from a2v.engine.face_pose import VISEMES
from a2v.engine.lipsync import BANDS, FEATURES, Network, VoiceProfile, features, mel_spectrum, voice_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from phones import Mouths
    from voices import Speech

    Sound = NDArray[np.float32]

_RATE = 16_000
_BATCH = 24
_WINDOW = 384  # rows that are looked at together
_REACHES = (1, 2, 4, 8, 1, 2, 4)
_TAPS = 5
_DROP = 0.1
_MEET = 20  # steps
_KEEP = 200  # steps after which a run that is stopped can be resumed
_LIPS = 0.7  # how much it counts whether lips are closed, beside which viseme it is
_CLOSED = VISEMES.index("A")
_MEANT = 0.7
"""Lips close as readily as this share of closed mouths that are p, b or m allows: one that is missed looks worse than one too many."""
_PAIRS = 3  # pairs of rows that the first layer sees
_VOWELS = {"B": (300, 2300), "C": (600, 1750), "D": (800, 1200), "E": (500, 850), "F": (310, 750)}  # Hz
_SHARE = {
    "kokoro": 3.0,
    "real": 3.0,
    "hibari": 1.0,
    "festival": 1.0,
    "flite": 1.5,
    "espeak": 1.0,
    "piper": 1.5,
    "silence": 1.0,
    "vowel": 2.0,
}
"""How often a family is chosen, for each minute of it: what sounds like people counts more."""


class Heard(NamedTuple):
    """A piece of sound as the net hears it, before it is measured against itself, with the right answers."""

    family: str
    bands: NDArray[np.float16]
    level: NDArray[np.float32]
    labels: NDArray[np.uint8]


def hear(path: Path, copies: int, without: list[str]) -> list[Heard]:
    """The speeches of a file, each of them clean and in so many disguises; kept in the folder ``heard`` beside it."""
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
            one, when = (sound, said) if not copy else _disguised(sound, said, random)
            bands, level = mel_spectrum(one)
            out.append(Heard(speech.voice.split("/")[0], bands, level, rows(when, len(level))))
    kept.write_bytes(pickle.dumps(out))
    return out


def silences(count: int) -> list[Heard]:
    """Recordings in which nobody says anything: noise of all colours and levels."""
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
        out.append(Heard("silence", bands, level, np.zeros(len(level), np.uint8)))
    return out


def vowels(count: int) -> list[Heard]:
    """Vowels that are held longer than speech holds them, as in song, by a source and two resonances; with pauses and some noise."""
    random = np.random.default_rng(6)
    out = []
    for _ in range(count):
        parts, labels = [], []
        for _ in range(int(random.integers(1, 5))):
            pause, length = int(random.uniform(0.1, 0.9) * 100), int(random.uniform(0.2, 1.5) * 100)
            name = str(random.choice(list(_VOWELS)))
            parts += [np.zeros(pause * _RATE // 100), _vowel(length * _RATE // 100, _VOWELS[name], random)]
            labels += [np.zeros(pause, np.uint8), np.full(length, VISEMES.index(name), np.uint8)]
        sound = np.concatenate([*parts, np.zeros(_RATE // 2)])
        sound += random.normal(0, 10 ** random.uniform(-5, -2.3), len(sound))
        bands, level = mel_spectrum(np.asarray(sound * 10 ** random.uniform(-1, 0.3), np.float32))
        out.append(Heard("vowel", bands, level, np.concatenate([*labels, np.zeros(50, np.uint8)])))
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
    """With a pause before and behind, and the hiss of some microphone."""
    before, behind = random.uniform(0.02, 0.9, 2)
    sound = np.pad(speech.samples.astype(np.float32) / 32768, (int(before * _RATE), int(behind * _RATE)))
    hiss = random.normal(0, 10 ** random.uniform(-5, -3.2) if random.random() < 0.9 else 0, len(sound))
    return np.asarray(sound + hiss, np.float32), [(a + before, b + before, name) for a, b, name in mouths(speech)]


def _disguised(sound: Sound, said: Mouths, random: np.random.Generator) -> tuple[Sound, Mouths]:
    """Another size of head and pace, another microphone, room, noise, line and loudness."""
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
    if random.random() < 0.2:  # a line that hears 8 bits, spaced like an ear's
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
    if random.random() < 0.3:  # that comes and goes
        noise *= 1 + 0.8 * np.sin(np.arange(len(noise)) / _RATE * random.uniform(0.5, 12))
    return np.asarray(noise / noise.std() * speech * 10 ** (-random.uniform(8, 40) / 20), np.float32)


class Net(nn.Module):
    """The net as it is trained; ``weights`` gives it as ``a2v.engine.lipsync`` runs it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(2 * FEATURES, channels, _PAIRS, padding=_PAIRS // 2)
        self.norm = nn.BatchNorm1d(channels)
        self.layers = nn.ModuleList(_Layer(channels, reach) for reach in _REACHES)
        self.leave = nn.Linear(channels, 2 * len(VISEMES))

    def forward(self, heard: Tensor) -> Tensor:
        """Scores (batch, rows, visemes) of features (batch, rows, features)."""
        batch, count, _ = heard.shape
        entered = self.enter(heard.reshape(batch, count // 2, -1).transpose(1, 2)).transpose(1, 2)
        state = self.norm(entered.flatten(0, 1)).relu().view(batch, count // 2, -1)
        for layer in self.layers:
            state = layer(state)
        scores: Tensor = self.leave(state)
        return scores.reshape(batch, count, len(VISEMES))

    def weights(self) -> dict[str, Tensor]:
        """By name, with the normalisations multiplied in."""
        enter, bias = _folded(self.enter.weight.permute(2, 1, 0).flatten(0, 1), self.enter.bias, self.norm)
        out = {"reaches": torch.tensor(_REACHES), "enter": enter, "enter_bias": bias}
        for i, layer in enumerate(self.layers):
            out[f"taps_{i}"], out[f"taps_bias_{i}"] = layer.taps, layer.taps_bias
            out[f"mix_{i}"], out[f"mix_bias_{i}"] = _folded(layer.mix.weight.T, layer.mix.bias, layer.norm)
            out[f"add_{i}"], out[f"add_bias_{i}"] = layer.add.weight.T, layer.add.bias
        out["leave"], out["leave_bias"] = self.leave.weight.T, self.leave.bias
        return out


class _Layer(nn.Module):
    """As ``a2v.engine.lipsync`` has it; five shifted products are faster than torch's convolution of single channels."""

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.taps = nn.Parameter(torch.randn(_TAPS, channels) * (2 / _TAPS) ** 0.5)
        self.taps_bias = nn.Parameter(torch.zeros(channels))
        self.mix = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.add = nn.Linear(channels, channels)

    def forward(self, state: Tensor) -> Tensor:
        count, side = state.shape[1], self.reach * (_TAPS // 2)
        padded = nn.functional.pad(state, (0, 0, side, side))
        seen = self.taps_bias
        for i in range(_TAPS):
            seen = seen + padded[:, i * self.reach : i * self.reach + count] * self.taps[i]
        mixed = self.norm(self.mix(seen).flatten(0, 1)).relu().view_as(state)
        if self.training:  # whole channels are dropped
            mixed = mixed * (torch.rand(len(state), 1, mixed.shape[2]) > _DROP) / (1 - _DROP)
        out: Tensor = state + self.add(mixed)
        return out


def _folded(weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * scale, (bias - norm.running_mean) * scale + norm.bias


class Data:
    """All pieces, and batches of windows out of them."""

    def __init__(self, heard: list[Heard]) -> None:
        voices = [voice_profile(h.bands, h.level, np.zeros(BANDS, np.float32)) for h in heard]
        self.usual = np.asarray(np.mean([v.bands for v in voices], axis=0), np.float32)
        self._pieces = [
            (features(h.bands, h.level, _with_usual(v, h.level, self.usual)).astype(np.float16), h.labels)
            for h, v in zip(heard, voices, strict=True)
        ]
        length = np.array([len(labels) for _, labels in self._pieces])
        chance = length * np.array([_SHARE.get(h.family, 1.0) for h in heard])
        self._chance = np.cumsum(chance / chance.sum())
        self.rows = int(length.sum())
        counts = np.bincount(np.concatenate([labels for _, labels in self._pieces]), minlength=len(VISEMES))
        weight = (counts.sum() / counts) ** 0.35
        self.weight = torch.tensor(weight / (weight * counts).sum() * counts.sum(), dtype=torch.float32)

    def shuffle(self, seed: list[int]) -> None:
        """Begins another series of batches."""
        self._random = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Features and labels; -100 where there is nothing."""
        heard = np.zeros((size, _WINDOW, FEATURES), np.float32)
        labels = np.full((size, _WINDOW), -100, np.int64)
        for i, piece in enumerate(np.searchsorted(self._chance, self._random.random(size))):
            rows, right = self._pieces[piece]
            first = int(self._random.integers(0, max(1, len(right) - _WINDOW + 1)))
            part = rows[first : first + _WINDOW].astype(np.float32)
            heard[i, : len(part)], labels[i, : len(part)] = self._changed(part), right[first : first + _WINDOW]
        return torch.from_numpy(heard), torch.from_numpy(labels)

    def _changed(self, rows: Sound) -> Sound:
        """Formants elsewhere (the mel axis warped), another tilt, and bands or moments that are missing."""
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


def _with_usual(own: VoiceProfile, level: Sound, usual: Sound) -> VoiceProfile:
    """Return the profile that ``lipsync.voice_profile`` measures, once the typical voice is known."""
    count = int((level > own.loud - 30).sum())
    return own._replace(bands=np.asarray(own.bands + usual * 30 / (count + 30), np.float32))


def train(rank: int, data: Data, net: Net, given: argparse.Namespace) -> Net:
    """Learns for so many steps, or for so long; the rate falls towards whichever comes first.

    Each process learns from batches of its own; every few steps they meet and take the middle of what they have learned.
    """
    torch.set_num_threads(1)  # two of them would wait for each other most of the time, where others work, too
    torch.manual_seed(rank)
    data.shuffle([rank, zlib.crc32(given.resume.read_bytes()) if given.resume else 0])  # resumed, it hears other things
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
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        slow.update_parameters(net)
        mean = loss.item() if not step else 0.99 * mean + 0.01 * loss.item()
        if step % 100 == 0 and not rank:
            print(f"step {step}: loss {mean:.4f}, {time.monotonic() - began:.0f} s", flush=True)
        step += 1
        if step % _KEEP == 0 and not rank:
            torch.save(slow.module.state_dict(), given.weights.with_suffix(".pt"))
        if step % _MEET == 0:
            done = _met(net, max(step / given.steps, (time.monotonic() - began) / 60 / given.minutes))
    best: Net = slow.module.eval()
    return best


def _loss(scores: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """How wrong the visemes are and, counted once more, whether lips are closed: those are few, and the eye sees them first."""
    visemes = nn.functional.cross_entropy(scores, labels, weight, label_smoothing=0.01)
    known, others = labels >= 0, torch.cat([scores[:, :_CLOSED], scores[:, _CLOSED + 1 :]], 1)
    closed = (scores[:, _CLOSED] - others.logsumexp(1))[known]
    lips = nn.functional.binary_cross_entropy_with_logits(closed, (labels[known] == _CLOSED).float())
    return visemes + _LIPS * lips


def _met(net: Net, done: float) -> float:
    """Puts the middle of all processes' nets into each of them; how much is done, in the middle, too."""
    values = [value for value in (*net.parameters(), *net.buffers()) if value.is_floating_point()]
    with torch.no_grad():
        together = torch.cat([torch.tensor([done]), *(value.flatten() for value in values)])
        distributed.all_reduce(together)
        together /= distributed.get_world_size()
        for value, new in zip(values, together[1:].split([value.numel() for value in values]), strict=True):
            value.copy_(new.view_as(value))
    return float(together[0])


def _work(rank: int, data: Data, net: Net, given: argparse.Namespace, meeting: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=given.processes)
    best = train(rank, data, net, given)
    if not rank:
        torch.save(best.state_dict(), given.weights.with_suffix(".pt"))


def readiness(network: Network, cache: Path, without: list[str]) -> float:
    """What to add to the score of closed lips, found on sentences that training left out, said by voices that it heard.

    The voices that score.py calls unheard have no say in it.
    """
    said = [speech for name, speech in spoken(cache, without, 300) if name.endswith("new words")]
    heard = [network.run(*mel_spectrum(padded(speech))) for speech in said]
    best = 0.0
    for more in np.arange(0, 4, 0.1):
        lift = np.where(np.arange(len(VISEMES)) == _CLOSED, np.exp(more), 1).astype(np.float32)
        lifted = [likely * lift / (likely @ lift)[:, None] for likely in heard]
        counts = [compare(likely, truth(speech, len(likely))) for likely, speech in zip(lifted, said, strict=True)]
        closings, meant, closures, closed = (
            max(1, sum(getattr(c, name) for c in counts)) for name in ("closings", "meant", "closures", "closed")
        )
        print(f"closed lips + {more:.1f}: {closed / closures:.1%} closed, {meant / closings:.1%} meant", flush=True)
        if meant < _MEANT * closings:
            break
        best = float(more)
    return best


def write(net: Net, usual: Sound, given: argparse.Namespace) -> None:
    """Puts the weights into their file, as ``a2v.engine.lipsync`` reads them."""
    weights = {name: value.detach().numpy() for name, value in net.eval().weights().items()} | {"usual": usual}
    more = readiness(Network(weights), given.cache, given.without)
    weights["leave_bias"] = weights["leave_bias"] + more * (np.arange(2 * len(VISEMES)) % len(VISEMES) == _CLOSED)
    with given.weights.open("wb") as file:
        np.savez_compressed(file, **{name: value.astype(np.float16) for name, value in weights.items()})


def main() -> None:
    """Hears everything, trains, and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="where the speech is")
    parser.add_argument("weights", type=Path, help="the file to write")
    parser.add_argument("--channels", type=int, default=160)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--minutes", type=float, default=600, help="at most")
    parser.add_argument("--rate", type=float, default=4e-3, help="of learning, at its highest")
    parser.add_argument(
        "--resume", type=Path, help="begin with the .pt that an earlier run has left beside its weights"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--copies", type=int, default=1, help="disguises of each sentence")
    parser.add_argument(
        "--without", action="append", default=[], help="a synthesiser, or synthesiser/voice, to leave out"
    )
    given = parser.parse_args()
    torch.manual_seed(1)
    (given.cache / "heard").mkdir(exist_ok=True)
    with ProcessPoolExecutor(given.processes) as pool:
        files = sorted(given.cache.glob("*-[0-9]*.npz"))
        heard = [h for part in pool.map(hear, files, repeat(given.copies), repeat(given.without)) for h in part]
    heard += silences(300) + vowels(300)
    data = Data(heard)
    del heard
    print(f"{data.rows / 6000:.0f} minutes", flush=True)
    net = Net(given.channels)
    if given.resume:
        net.load_state_dict(torch.load(given.resume))
    with tempfile.TemporaryDirectory() as folder:
        arguments = (data, net, given, f"{folder}/meeting")
        multiprocessing.start_processes(_work, arguments, given.processes, start_method="fork")
    net.load_state_dict(torch.load(given.weights.with_suffix(".pt")))
    write(net, data.usual, given)


if __name__ == "__main__":
    main()
