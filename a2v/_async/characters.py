"""``client.characters``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._core import wire
from a2v._core.settings import HoldsSecret

if TYPE_CHECKING:
    from a2v._async.requests.session import Session
    from a2v._values.models import Character


class AsyncCharacters(HoldsSecret):
    """The characters of the service."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(self) -> list[Character]:
        """All characters that can speak.

        Returns:
            One value each; ``model_id`` is what ``videos.generate`` wants to know.

        Raises:
            APIError: The server said no.
            TransportError: The server could not be talked to.
        """
        return await self._session.call(wire.character_list())
