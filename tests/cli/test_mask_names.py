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
        ([row("x", mask=True), row("x.mask")], 2, "'x.mask' is the name of the mask of row 1 too"),
        ([row("x.mask"), row("x", mask=True)], 2, "its mask would be called 'x.mask', which is the name of the video of row 1"),
        ([row("X", mask=True), row("x.MASK")], 2, "'x.MASK' is the name of the mask of row 1 too"),
        ([row(None, mask=True), row("0001.mask")], 2, "'0001.mask' is the name of the mask of row 1, which has none"),
        ([row("0002.mask"), row(None, mask=True)], 1, "'0002.mask' is the name of the mask of row 2, which has none"),
        ([row("x.mask", mask=True), row("x.mask.mask")], 2, "'x.mask.mask' is the name of the mask of row 1 too"),
        ([row("x", mask=True), row("x", mask=True)], 2, "'x' is the name of the video of row 1 too"),
    ],
)  # fmt: skip
def test_a_name_that_a_mask_has(rows, place, told, tmp_path, here) -> None:
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
