"""A mask is saved as NAME.mask beside its video, so no other row may have that name."""

from __future__ import annotations

import pytest

import a2v

URL = "https://example.com/a.wav"


def row(name: str | None, *, mask: bool = False) -> dict[str, object]:
    return {"pose_id": "p1", "audio_url": URL, "name": name, "with_mask": mask}


@pytest.mark.parametrize(
    ("rows", "place", "told"),
    [
        ([row("x", mask=True), row("x.mask")], 2, "'x.mask' is also the name of the mask of row 1"),
        ([row("x.mask"), row("x", mask=True)], 2, "the name of its mask, 'x.mask', is also the name of the video of row 1"),
        ([row("X", mask=True), row("x.MASK")], 2, "'x.MASK' is also the name of the mask of row 1"),
        ([row(None, mask=True), row("0001.mask")], 2, "'0001.mask' is also the name of the mask of row 1 (by default 0001.mask)"),
        ([row("0002.mask"), row(None, mask=True)], 1, "'0002.mask' is also the name of the mask of row 2 (by default 0002.mask)"),
        ([row("x.mask", mask=True), row("x.mask.mask")], 2, "'x.mask.mask' is also the name of the mask of row 1"),
        ([row("x", mask=True), row("x", mask=True)], 2, "'x' is also the name of the video of row 1"),
    ],
)  # fmt: skip
def test_a_name_that_collides_with_a_mask(rows, place, told, tmp_path, here) -> None:
    with pytest.raises(a2v.ManifestError) as caught:
        a2v.read_manifest(rows)
    fault, *_ = caught.value.faults
    assert (fault.row, fault.column) == (place, "name")
    assert told in fault.problem

    jobs = [a2v.Job(**{key: value for key, value in cells.items() if value is not None}) for cells in rows]
    with a2v.A2V("token-1234") as client, pytest.raises(a2v.ManifestError, match="used more than once"):
        client.batch(jobs, save_to=tmp_path)

    table = ["pose_id,audio_url,name,with_mask"]
    table += [f"p1,{URL},{cells['name'] or ''},{str(cells['with_mask']).lower()}" for cells in rows]
    (tmp_path / "jobs.csv").write_text("\n".join(table) + "\n")
    code, out, err = here("batch", "jobs.csv", "-o", "videos")
    assert (code, out) == (2, "")
    assert f"row {place + 1}, name: " in err
    assert "Traceback" not in err


def test_names_that_only_look_alike(tmp_path) -> None:
    rows = [row("x"), row("x.mask"), row("y", mask=True), row("y.masks")]
    assert [job.name for job in a2v.read_manifest(rows)] == ["x", "x.mask", "y", "y.masks"]
