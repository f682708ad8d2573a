"""The characters and poses that a user may choose, by their ids or names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from attrs import field, frozen

from a2v._core.manifest_rows import listed
from a2v._values.models import Avatar, Character
from a2v._values.text import redacted_repr, strip


@frozen
class Speakers:
    """The characters and poses of a server.

    Attributes:
        ids: For ``model_id`` and ``pose_id``: the ids that there are. A column that is missing is not checked.
        names: The ids of the characters with each name, by ``_plain_name``.
    """

    ids: Mapping[str, Sequence[str]]
    names: Mapping[str, Sequence[str]] = field(factory=dict)

    @classmethod
    def of(cls, speakers: Iterable[Character | Avatar]) -> Speakers:
        """Collect the ids and names."""
        ids: dict[str, list[str]] = {}
        names: dict[str, list[str]] = {}
        for speaker in speakers:
            if isinstance(speaker, Avatar):
                ids.setdefault("pose_id", []).extend(pose.pose_id for pose in speaker.poses)
            else:
                ids.setdefault("model_id", []).append(speaker.model_id)
                for name in {_plain_name(speaker.display_name), _plain_name(speaker.name)} - {""}:
                    names.setdefault(name, []).append(speaker.model_id)
        return cls(ids, names)

    def has(self, column: str, text: str) -> bool:
        """Whether a cell is an id as the server has it; true of any cell in a column that is not checked."""
        ids = self.ids.get(column)
        return ids is None or text in ids

    def resolve(self, column: str, text: str) -> str:
        """Return the id that a cell means: an id, or the name of exactly one character.

        Raises:
            ValueError: There is no such character or pose, or there are several characters with this name.
        """
        if self.has(column, text):
            return text
        ids = self.ids[column]
        found = self.names.get(_plain_name(text), ()) if column == "model_id" else ()
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{len(found)} characters are called {redacted_repr(text)}: use one of {listed(found)}")
        similar = self.similar(column, text)
        advice = f"did you mean {similar!r}?" if similar else f"use one of {listed(ids)}"
        raise ValueError(
            f"there is no {'character' if column == 'model_id' else 'pose'} {redacted_repr(text)}; {advice}"
        )

    def similar(self, column: str, text: str) -> str | None:
        """Return the id that is most similar to a text, or whose character's name is; ``None`` if none is."""
        candidates = {_plain_name(one): one for one in self.ids.get(column, ())}
        if column == "model_id":
            candidates |= {name: ids[0] for name, ids in self.names.items()}
        found = get_close_matches(_plain_name(text), candidates, n=1)
        return candidates[found[0]] if found else None


def _plain_name(name: str) -> str:
    """Return a name without differences of case, spaces and hyphens: ``Eva 01`` and ``eva_01`` are the same."""
    return re.sub(r"[\s_-]+", " ", strip(name)).strip().casefold()
