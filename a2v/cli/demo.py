"""``a2v demo``: several characters speak recordings that come with a2v, all at once."""

from __future__ import annotations

import os
import shlex
import sys
from itertools import cycle
from typing import TYPE_CHECKING

import anyio
from attrs import frozen

from a2v import A2VError, Job
from a2v.cli.terminal import program, shown_path
from a2v.engine import SAMPLE_RECORDING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from a2v import Character
    from a2v.cli.tracking import VideoTracker

FOLDER = SAMPLE_RECORDING.parent


@frozen
class Clip:
    """A recording that comes with a2v; ``engine/recordings/LICENSE.md`` has its origin and license.

    Attributes:
        name: The name of the file, without extension.
        gender: The speaker's, as characters have it.
    """

    name: str
    gender: str

    @property
    def path(self) -> Path:
        """The file."""
        return FOLDER / f"{self.name}.flac"


CLIPS = (Clip("slt", "female"), Clip("awb", "male"), Clip("june", "female"), Clip("carlo", "male"))
CREDITS = "Speech: CMU ARCTIC (slt, awb), June Wallack (CC BY-SA 3.0), Carlo Flora (CC BY 3.0); terms in"


def assign(clips: Iterable[Clip], characters: list[Character]) -> list[tuple[Clip, Character]]:
    """Assign a character to each clip: of the same gender if there is one, and as few of them twice as possible.

    Raises:
        A2VError: There are no characters.
    """
    if not characters:
        raise A2VError("the server has no characters")
    genders = {character.gender for character in characters}
    by_gender = {gender: cycle([one for one in characters if one.gender == gender]) for gender in genders}
    others = cycle(characters)
    return [(clip, next(by_gender.get(clip.gender, others))) for clip in clips]


async def make_videos(tracker: VideoTracker, folder: Path) -> list[Path]:
    """Make a video of each clip, all at once.

    Returns:
        The paths of the videos.

    Raises:
        A2VError: A video could not be made. The others were.
    """
    made: list[Path] = []
    errors: list[A2VError] = []

    async def make(clip: Clip, character: Character) -> None:
        target = folder / f"{character.model_id}-{clip.name}.mp4"
        label = f"{character.display_name} speaks {clip.path.name}"
        try:
            task = await tracker.submit(Job(character.model_id, clip.path.as_uri()), label=label, target=target)
            await tracker.follow(task, overwrite=True)
        except A2VError as error:
            errors.append(error)
        else:
            made.append(target.absolute())

    assigned = assign(CLIPS, await tracker.client.characters.list())
    async with anyio.create_task_group() as tasks:
        for clip, character in assigned:
            tasks.start_soon(make, clip, character)
    if errors:
        raise errors[0]
    return sorted(made)


def advice(made: list[Path], folder: Path) -> list[str]:
    """Return the lines that say what to do next."""
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform)
    if not opener and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        opener = "xdg-open"
    watch = ["Open them with any video player, for example:", f"  {opener} {shlex.quote(shown_path(made[0]))}"]
    return [
        "",
        f"{len(made)} videos are in {shown_path(folder)}",
        *(watch if opener else []),
        "Make a video of your own recording:",
        f"  {program()} generate RECORDING --model-id eva_a0008 --local -o hello.mp4",
        f"{CREDITS} {FOLDER / 'LICENSE.md'}",
    ]
