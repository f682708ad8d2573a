"""A stager may live as long as a server: what it staged is not remembered for ever."""

from __future__ import annotations

import gc

import pytest

from a2v.errors import StagingError
from a2v.staging import Stager


def remembered() -> int:
    """How many objects in stores this process knows of."""
    return sum(
        type(one).__qualname__ == "_StagedObject" and type(one).__module__ == "a2v.staging.stager"
        for one in gc.get_objects()
    )


def stage_some(stager: Stager, recording) -> None:
    for number in range(20):
        stager.url(recording(content=b"%d" % (number % 10)))


@pytest.mark.parametrize("remove", [False, True])
def test_nothing_is_remembered_after_the_end(bucket, recording, remove):
    before = remembered()
    with Stager(bucket.place, remove=remove) as stager:
        stage_some(stager, recording)
        assert remembered() - before == (10 if remove else 0)
    assert remembered() == before
    assert len(bucket.keys) == (0 if remove else 10)


def test_nor_after_an_error_that_keeps_them(bucket, recording):
    before = remembered()
    with pytest.raises(ZeroDivisionError), Stager(bucket.place, remove=True) as stager:  # noqa: PT012  # the block fails
        stage_some(stager, recording)
        raise ZeroDivisionError
    assert remembered() == before
    assert len(bucket.keys) == 10


def test_nor_after_uploads_that_fail(refuse, bucket, recording):
    refuse(403, "AccessDenied")
    before = remembered()
    stager = Stager(bucket.place, remove=True)
    with pytest.raises(StagingError):
        stager.url(recording())
    assert remembered() == before
