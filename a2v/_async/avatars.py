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
    """The avatars that the service can render, each in several poses. Servers of the first revision do not have them."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<AsyncA2V.avatars {self._session.base_url}>"

    async def list(self) -> list[Avatar]:
        """List the avatars with their poses.

        Returns:
            The avatars. Pass the ``pose_id`` of one of their ``poses`` to ``videos.generate``.

        Raises:
            NotFoundError: The server does not have this method.
            A2VError: The server rejected the request or could not be reached.
        """
        return await self._session.call(wire.avatar_list())

    async def poses(self, avatar_id: str) -> builtins.list[Pose]:
        """List the poses of an avatar.

        Args:
            avatar_id: The avatar, from ``avatars.list``.

        Returns:
            The poses. Pass the ``pose_id`` of one to ``videos.generate``.

        Raises:
            InvalidArgumentError: ``avatar_id`` is invalid. Nothing was sent.
            NotFoundError: The server does not know the avatar, or does not have this method. The message says which.
            A2VError: The server rejected the request or could not be reached.
        """
        return await self._session.call(
            wire.avatar_pose_list(arguments.identifier("avatar_id", avatar_id, "an avatar"))
        )
