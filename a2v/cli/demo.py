"""``a2v demo``: several characters speak real recordings, all at once."""

from __future__ import annotations

import shlex
import shutil
import sys
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from attrs import frozen

from a2v import A2VError, Job
from a2v.cli.session import follow, submit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from a2v import AsyncA2V, Character
    from a2v.cli.output import Output

FOLDER = Path(__file__).with_name("clips")


@frozen
class Clip:
    """A recording that comes with a2v; `clips/LICENSE.md` tells from where and on what terms.

    Attributes:
        name: The file, without its extension.
        gender: The speaker's, as characters have it.
    """

    name: str
    gender: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.name}.flac"


CLIPS = (Clip("slt", "female"), Clip("awb", "male"), Clip("june", "female"), Clip("carlo", "male"))
CREDITS = "Speech: CMU ARCTIC (slt, awb), June Wallack (CC BY-SA 3.0), Carlo Flora (CC BY 3.0); terms in"


def assign(clips: Iterable[Clip], cast: list[Character]) -> list[tuple[Clip, Character]]:
    """Find a speaker for each clip: of the recorded voice's gender if there is one, and another each time while they last.

    Raises:
        A2VError: There is nobody to speak.
    """
    if not cast:
        raise A2VError("the server has no characters")
    genders = {character.gender for character in cast}
    turns = {gender: cycle([one for one in cast if one.gender == gender]) for gender in genders}
    anybody = cycle(cast)
    return [(clip, next(turns.get(clip.gender, anybody))) for clip in clips]


async def make_videos(client: AsyncA2V, output: Output, folder: Path) -> list[Path]:
    """Make a video of each clip, all at once.

    Returns:
        Where the videos are.

    Raises:
        A2VError: One could not be made. The others were.
    """
    made: list[Path] = []
    errors: list[A2VError] = []

    async def make(clip: Clip, character: Character) -> None:
        target = folder / f"{character.model_id}-{clip.name}.mp4"
        label = f"{character.display_name} speaks {clip.path.name}"
        try:
            await follow(
                await submit(
                    client,
                    output,
                    Job(character.model_id, clip.path.as_uri()),
                    label=label,
                    target=target,
                ),
                output,
                overwrite=True,
            )
        except A2VError as error:
            errors.append(error)
        else:
            made.append(target.absolute())

    cast = assign(CLIPS, await client.characters.list())
    async with anyio.create_task_group() as tasks:
        for clip, character in cast:
            tasks.start_soon(make, clip, character)
    if errors:
        raise errors[0]
    return sorted(made)


def advice(made: list[Path], folder: Path) -> list[str]:
    """How to go on once the videos are there."""
    # Whoever set the project up in a folder of its own has the program there and not on the path.
    program = "a2v" if shutil.which("a2v") else shlex.quote(sys.argv[0])
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    return [
        "",
        f"{len(made)} videos are in {folder.absolute()}",
        "Open them with any video player, for example:",
        f"  {opener} {shlex.quote(str(made[0]))}",
        "Make one of a recording of your own:",
        f"  {program} generate RECORDING --model-id eva_a0008 --local -o hello.mp4",
        f"{CREDITS} {FOLDER / 'LICENSE.md'}",
    ]
