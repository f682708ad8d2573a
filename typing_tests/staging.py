"""What those who stage a file see. Read by type checkers, never run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_type

from a2v.staging import AsyncStager, Stager, stage

if TYPE_CHECKING:
    from a2v import A2VError, StagingError


async def one() -> None:
    with stage("speech.wav", "s3://bucket") as url:
        assert_type(url, str)
    async with stage(Path("speech.wav"), "s3://bucket", expires_in=60, remove=True) as url:
        assert_type(url, str)


async def many() -> None:
    async with AsyncStager("s3://bucket", expires_in=60.5, remove=True) as entered:
        assert_type(entered, AsyncStager)
        assert_type(await entered.url("speech.wav"), str)
    assert_type(await entered.aclose(), None)
    with Stager("s3://bucket") as stager:
        assert_type(stager, Stager)
        assert_type(stager.url(Path("speech.wav")), str)
    assert_type(stager.close(), None)


def errors(error: StagingError) -> A2VError:
    return error
