"""The speeches of the engine: recordings that its voices have made, kept for a day in the data folder.

A speech is a WAV file with a random name of 128 bits, so its URL is a secret, like the URL of a video. Beside it is a JSON file with its
words. ``video.generate`` takes the URL as an ``audio_url``. The engine recognises it by its path and copies the file. It could not fetch
the URL, because it rejects private addresses, and its port may have changed since.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
import wave
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from attrs import asdict

from a2v._values.models import Word
from a2v.engine.data_folder import ensure_private_folder, move_durably

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from a2v.engine.voices import Utterance

KEEP_SECONDS = 86_400.0
"""How long a speech is kept after its synthesis."""
NO_WORDS = (
    "captions: the recording is not a speech of this engine, so the times of its words are unknown: add captions_file, the text of a "
    "SubRip (.srt) or WebVTT (.vtt) file (on the command line: --captions-file), or transcript, the spoken text (--transcript)"
)
"""The error message for captions without words: no ``captions_file``, no ``transcript``, and no speech."""
_SPEECH_PATH = re.compile(r"/speeches/([0-9a-f]{32})\.wav$")


class Speeches:
    """The speeches of one data folder.

    Args:
        folder: Their folder; created if it does not exist.

    Raises:
        ConfigurationError: The folder is a link or a file.
        OSError: The folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        ensure_private_folder(folder)
        self._folder = folder

    def add(self, utterance: Utterance) -> str:
        """Store a speech; return its id.

        Raises:
            OSError: It cannot be written.
        """
        speech_id = secrets.token_hex(16)
        part = self._folder / f"{speech_id}.part"
        try:
            with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                write_wav(file, utterance)
            words = [asdict(word) for word in utterance.words]
            self._words_path(speech_id).write_text(json.dumps(words), encoding="utf-8")
            move_durably(part, self.path(speech_id))
        finally:
            part.unlink(missing_ok=True)
        return speech_id

    def words(self, audio_url: str) -> list[Word] | None:
        """Return the words of the speech at a URL, with their times; ``None`` if there is no such speech."""
        speech_id = speech_id_of(audio_url)
        try:
            content = self._words_path(speech_id).read_text(encoding="utf-8") if speech_id else None
        except FileNotFoundError:
            return None
        return [Word(**word) for word in json.loads(content)] if content else None

    def _words_path(self, speech_id: str) -> Path:
        return self._folder / f"{speech_id}.json"

    def path(self, speech_id: str) -> Path:
        """Return the path of a speech."""
        return self._folder / f"{speech_id}.wav"

    def copy(self, audio_url: str, destination: Path) -> bool:
        """Copy the speech at a URL; return whether there is one.

        Raises:
            OSError: The copy cannot be written.
        """
        speech_id = speech_id_of(audio_url)
        if speech_id is None:
            return False
        try:
            shutil.copyfile(self.path(speech_id), destination)
        except FileNotFoundError:
            return False
        return True

    def sweep(self, needed: Iterable[str]) -> int:
        """Delete the speeches that are older than a day; return how many could not be deleted.

        Args:
            needed: The ``audio_url`` of each unfinished task; speeches among them are kept.
        """
        needed_ids = {speech_id_of(audio_url) for audio_url in needed}
        failures = 0
        for path in self._folder.iterdir():
            try:
                if path.stem not in needed_ids and path.stat().st_mtime < time.time() - KEEP_SECONDS:
                    path.unlink(missing_ok=True)
            except OSError:
                failures += 1
        return failures


def speech_id_of(audio_url: str) -> str | None:
    """Return the id in the URL of a speech, on any host and port; ``None`` if it is not such a URL."""
    found = _SPEECH_PATH.search(urlsplit(audio_url).path)
    return found[1] if found else None


def write_wav(file: IO[bytes], utterance: Utterance) -> None:
    """Write a speech as 16-bit WAV."""
    samples = np.clip(utterance.samples, -1, 1) * 32767
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(utterance.rate)
        target.writeframes(samples.astype("<i2").tobytes())
