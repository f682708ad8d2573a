"""``client.avatars``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._core import wire
from a2v._core.settings import HoldsSecret
from a2v._values import arguments

if TYPE_CHECKING:
    import builtins

    from a2v._async.requests.session import Session
    from a2v._values.models import Avatar, Pose


class AsyncAvatars(HoldsSecret):
    """The avatars of the service, each with its poses. Servers of the first revision do not have them."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(self) -> list[Avatar]:
        """All avatars that can speak, with their poses.

        Returns:
            One value each; the ``pose_id`` of one of its ``poses`` is what ``videos.generate`` wants to know.

        Raises:
            NotFoundError: This server does not have the call.
            A2VError: The server said no or could not be asked.
        """
        return await self._session.call(wire.avatar_list())

    async def poses(self, avatar_id: str) -> builtins.list[Pose]:
        """The poses of one avatar.

        Args:
            avatar_id: Which, as ``avatars.list`` names it.

        Returns:
            One value each; ``pose_id`` is what ``videos.generate`` wants to know.

        Raises:
            InvalidArgumentError: ``avatar_id`` cannot be right. Nothing was sent.
            NotFoundError: The server does not know the avatar, or does not have the call; the error tells which.
            A2VError: The server said no or could not be asked.
        """
        return await self._session.call(
            wire.avatar_pose_list(arguments.identifier("avatar_id", avatar_id, "an avatar"))
        )
