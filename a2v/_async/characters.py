"""``client.characters``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._core import wire
from a2v._core.settings import HoldsSecret

if TYPE_CHECKING:
    from a2v._async.requests.session import Session
    from a2v._values.models import Character


class AsyncCharacters(HoldsSecret):
    """The characters that the service can render."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<AsyncA2V.characters {self._session.base_url}>"

    async def list(self) -> list[Character]:
        """List the characters.

        Returns:
            The characters. Pass the ``model_id`` of one to ``videos.generate``.

        Raises:
            APIError: The server rejected the request.
            TransportError: The server could not be reached.
        """
        return await self._session.call(wire.character_list())
