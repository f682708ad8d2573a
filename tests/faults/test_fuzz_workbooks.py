"""Damaged workbooks: each leads to jobs or to a ``ManifestError``, in little time and memory.

``A2V_FUZZ_CASES`` says how many there are (2,000 if unset, of which the default set runs a tenth). Seeded, so that a failure
comes again.
"""

from __future__ import annotations

import datetime as dt
import os
import random
from pathlib import Path

import openpyxl
import pytest

import a2v
from tests.workbooks import by_hand, packed, parts_of, saved

CASES = int(os.environ.get("A2V_FUZZ_CASES", "2000"))
URL = "https://example.com/a.wav"
PIECES = [
    b"",
    b"\0",
    b"\xff",
    b"9" * 20,
    b"-1",
    b'"',
    b"<",
    b">",
    b"</c>",
    b"&#0;",
    b"&x;",
    b"e400",
    b"nan",
    b' r="ZZZ9"',
]


def seed() -> bytes:
    """A workbook with every kind of cell."""
    book = openpyxl.Workbook()
    book.active.append(["model_id", "audio_url", "name", "when", "count"])
    for number in range(4):
        when = dt.datetime(2026, 1, 2, 3, number)  # noqa: DTZ001  # a spreadsheet has no zones
        book.active.append(["eva", f"{URL}?{number}", f"clip {number}", when, number * 1.5])
    book.active.row_dimensions[4].hidden = True
    return saved(book)


def changed(dice: random.Random, content: bytes) -> bytes:
    """The content with some of its bytes gone, doubled or replaced."""
    made = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(len(made) + 1)
        made[at : at + dice.choice([0, 0, 1, 4])] = dice.choice([*PIECES, bytes(made[at : at + 30]), dice.randbytes(3)])
    return bytes(made)


def tried(path: Path, data: bytes) -> bool:
    """Whether there are jobs in it; a `ManifestError` says why not, and no other error may come."""
    path.write_bytes(data)
    try:
        a2v.read_manifest(path)
    except a2v.ManifestError as error:
        return not error.faults or not str(error).encode()
    return True


@pytest.mark.parametrize(
    "share", [pytest.param(0.1, id="short"), pytest.param(0.9, id="long", marks=pytest.mark.extended)]
)
def test_a_damaged_workbook_is_jobs_or_faults(tmp_path: Path, share: float) -> None:
    dice = random.Random(f"workbooks {share}")
    whole = [seed(), packed(by_hand('<row><c t="s"><v>0</v></c></row>', strings="<si><t>model_id</t></si>"))]
    parts = [parts_of(data) for data in whole]
    found = set()
    for number in range(int(CASES * share)):
        which = number % len(whole)
        if dice.randrange(3) == 0:
            data = changed(dice, whole[which])
        else:
            part = dice.choice(list(parts[which]))
            data = packed(parts[which] | {part: changed(dice, parts[which][part])})
        found.add(tried(tmp_path / "jobs.xlsx", data))
    assert found == {True, False}
