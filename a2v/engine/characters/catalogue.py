"""The characters of an engine: the built-in ones, and those in a folder, which may change at any time.

``Catalogue.current`` returns ``Characters``, an immutable snapshot. First it compares the folder with the last snapshot and reads new
and changed files. So a change takes effect with the next request, at the cost of one ``stat`` per file, and nothing runs in between. A file
that was modified less than ``_SETTLE_SECONDS`` before it was read may change once more with the same size and time, so it is read again.

An invalid file is logged once and left out; the other characters are not affected. If the folder itself cannot be read, the last snapshot
stays in force.

The files of one character have the same stem. ``read_files`` decides by their extensions what kind of character it is.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from a2v._values.text import escape
from a2v.engine.characters import (
    MAX_FILE_SIZE,
    Character,
    CharacterError,
    built_in_characters,
    camera_poses,
    dump_character,
    parse_character,
    parse_portrait,
)
from a2v.engine.characters.portraits import MAX_PICTURE, PICTURE_SUFFIXES
from a2v.engine.errors import PortraitError, RenderCrashedError, ResourceExhaustedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from a2v.engine.characters import CameraPose

logger: logging.Logger = logging.getLogger("a2v.engine")

SUFFIXES = (".toml", *PICTURE_SUFFIXES)
"""The extensions of the files of characters, in lower case. Other files are ignored."""
PREVIEW_SUFFIX = ".preview.png"
"""The end of the names of preview pictures, which are not characters."""
_SETTLE_SECONDS = 2.0


@frozen(slots=False)
class Characters:
    """The characters at one time.

    Attributes:
        specs: The characters by ``model_id``: the built-in ones, then those in the folder, sorted by id.
        problems: The invalid files of the folder.
    """

    specs: Mapping[str, Character]
    problems: tuple[CharacterError, ...] = ()

    @cached_property
    def poses(self) -> Mapping[str, CameraPose]:
        """The poses of all characters by ``pose_id``."""
        return {pose.pose_id: pose for spec in self.specs.values() for pose in camera_poses(spec)}

    def find_pose(self, subject_id: str) -> CameraPose | None:
        """Return a pose by its ``pose_id``, or the default pose of a character by its ``model_id``."""
        spec = self.specs.get(subject_id)
        return camera_poses(spec)[0] if spec else self.poses.get(subject_id)


def is_built_in(spec: Character) -> bool:
    """Whether a character comes with the engine, so that each installation has it."""
    return built_in_characters().get(spec.model_id) == spec


def portable(spec: Character) -> bytes | None:
    """Return a character as bytes, for other processes and machines; ``None`` if they have it anyway."""
    return None if is_built_in(spec) else dump_character(spec)


@frozen
class _Entry:
    """The result of reading the files with one stem.

    Attributes:
        name: The name of the first of them, for messages.
        signature: Their names, inodes, sizes and times: if it is unchanged, so are the files.
        is_settled: Whether the result is final until the signature changes.
        result: The character, or the error that makes it invalid.
    """

    name: str
    signature: object
    is_settled: bool
    result: Character | CharacterError


@define(eq=False)
class Catalogue:
    """The built-in characters, and the characters in a folder if there is one.

    Attributes:
        folder: The folder; ``None``: there are only the built-in characters.
        error: The reason why the folder could not be read the last time; ``None`` if it could.
    """

    folder: Path | None = None
    error: str | None = field(default=None, init=False)
    _entries: dict[str, _Entry] = field(factory=dict, init=False)
    _snapshot: Characters = field(factory=lambda: Characters(built_in_characters()), init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def current(self) -> Characters:
        """Return the characters as they are now in the folder."""
        if self.folder is None:
            return self._snapshot
        async with self._lock:
            await self._refresh(self.folder)
            return self._snapshot

    async def _refresh(self, folder: Path) -> None:
        try:
            found = await anyio.to_thread.run_sync(_scan, folder)
        except OSError as error:
            if self.error is None:
                logger.error(  # noqa: TRY400  # the reason is enough
                    "the characters in %s cannot be read, so they remain unchanged: %s", folder, error.strerror
                )
            self.error = error.strerror or str(error)
            return
        self.error = None
        entries = {stem: await self._read_entry(stem, files) for stem, files in found.items()}
        if entries != self._entries:
            snapshot = _combine(entries.values())
            _log_changes(self._snapshot, snapshot)
            self._entries, self._snapshot = entries, snapshot

    async def _read_entry(self, stem: str, files: Mapping[Path, os.stat_result]) -> _Entry:
        name = next(iter(files)).name
        signature = [(path.name, status.st_ino, status.st_size, status.st_mtime_ns) for path, status in files.items()]
        known = self._entries.get(stem)
        if known and known.is_settled and known.signature == signature:
            return known
        # If the clock of the file system differs from this machine's, a file is read more often than necessary.
        is_settled = all(abs(time.time() - status.st_mtime) > _SETTLE_SECONDS for status in files.values())
        result: Character | CharacterError
        try:
            result = await read_files(list(files))
        except CharacterError as error:
            result = error
        except (RenderCrashedError, ResourceExhaustedError) as error:
            result, is_settled = CharacterError(name, [f"it could not be examined: {error}"]), False
        except OSError as error:
            # Another attempt may succeed: too many files are open, or the mode of the file was changed.
            result, is_settled = CharacterError(name, [f"it cannot be read: {error.strerror}"]), False
        return _Entry(name, signature, is_settled, result)


async def read_files(files: list[Path]) -> Character:
    """Read a character. A portrait is examined, and has its previews.

    Args:
        files: Its files, which have one stem.

    Raises:
        CharacterError: It is invalid.
        OSError: It cannot be read.
        RenderCrashedError: The process that examines a portrait crashed.
        ResourceExhaustedError: The machine has run out of a resource.
    """
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    tables = [path for path in files if path.suffix.lower() == ".toml"]
    if len(pictures) > 1 or len(tables) > 1:
        names = " and ".join(path.name for path in files)
        raise CharacterError(files[0].name, [f"{names} are the same character; keep one picture and one .toml"])
    settings = None
    for table in tables:
        settings = await anyio.to_thread.run_sync(partial(_read_file, table, MAX_FILE_SIZE))
    for path in pictures:
        picture = await anyio.to_thread.run_sync(partial(_read_file, path, MAX_PICTURE))
        portrait = parse_portrait(path.name, picture, settings)
        # Imported late: most folders have no portraits.
        from a2v.engine.portrait.check import examine  # noqa: PLC0415

        try:
            return await examine(portrait)
        except PortraitError as error:
            raise CharacterError(path.name, [str(error)]) from None
    return parse_character(files[0].name, settings or b"")


def _scan(folder: Path) -> dict[str, dict[Path, os.stat_result]]:
    """Return the files of characters with their status, by stem."""
    found: dict[str, dict[Path, os.stat_result]] = {}
    for path in sorted(folder.iterdir()):
        name = path.name
        is_ours = path.suffix.lower() in SUFFIXES and not name.startswith(".") and not name.endswith(PREVIEW_SUFFIX)
        if is_ours:
            try:
                found.setdefault(path.stem, {})[path] = path.stat()
            except OSError:
                # Deleted meanwhile, or a broken link, which reading reports.
                found.setdefault(path.stem, {})[path] = path.lstat()
    return found


def _read_file(path: Path, limit: int) -> bytes:
    # A pipe would block.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CharacterError(path.name, ["it is not a file"])
        return file.read(limit + 1)


def _combine(entries: Iterable[_Entry]) -> Characters:
    """Make a snapshot. A character whose ``model_id`` is taken is a problem."""
    specs: dict[str, Character] = dict(built_in_characters())
    taken = {model_id.casefold(): f"the built-in character {model_id}" for model_id in specs}
    problems = []
    for entry in entries:
        result = entry.result
        if isinstance(result, CharacterError):
            problems.append(result)
            continue
        if other := taken.get(result.model_id.casefold()):
            reason = f"{other} has the same model_id; rename the file (upper and lower case count as the same)"
            problems.append(CharacterError(entry.name, [reason]))
            continue
        taken[result.model_id.casefold()] = entry.name
        specs[result.model_id] = result
    return Characters(specs, tuple(problems))


def _log_changes(before: Characters, after: Characters) -> None:
    known = {str(problem) for problem in before.problems}
    for problem in after.problems:
        if str(problem) not in known:
            logger.warning("invalid character: %s", escape(str(problem)))
    for word, model_id in _changes(before.specs, after.specs):
        logger.info("character %s: %s", model_id, word)


def _changes(before: Mapping[str, Character], after: Mapping[str, Character]) -> Iterator[tuple[str, str]]:
    for model_id in before.keys() | after.keys():
        if before.get(model_id) != after.get(model_id):
            word = "added" if model_id not in before else "removed" if model_id not in after else "changed"
            yield word, model_id
