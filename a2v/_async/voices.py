"""``client.voices``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._core import wire
from a2v._core.settings import HoldsSecret

if TYPE_CHECKING:
    from a2v._async.requests.session import Session
    from a2v._values.models import Speech, Voice


class AsyncVoices(HoldsSecret):
    """The voices that can speak a text. Servers of the first revision do not have them."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<AsyncA2V.voices {self._session.base_url}>"

    async def list(self) -> list[Voice]:
        """List the voices.

        Returns:
            The voices. Pass the ``voice_name`` of one to ``voices.generate`` or ``videos.generate``.

        Raises:
            NotFoundError: The server does not have this method.
            A2VError: The server rejected the request or could not be reached.
        """
        return await self._session.call(wire.voice_list())

    async def generate(self, *, text: str, voice_name: str) -> Speech:
        """Synthesize a text: make a recording of a voice that speaks it.

        This may cost money. One call never synthesizes the text more than once: like a submission, the request is retried only if
        it provably did not arrive or was provably rejected.

        Args:
            text: The text. It is sent whole. The hosted service accepts 500 characters; the local engine accepts 5,000 and splits
                them at the ends of sentences itself.
            voice_name: The voice, from ``voices.list``.

        Returns:
            The speech. Its ``url`` is an ``audio_url``; use it soon, because it may expire.

        Raises:
            InvalidArgumentError: An argument is invalid. Nothing was sent.
            NotFoundError: The server does not know the voice, or does not have this method. The message says which.
            SubmissionUnknownError: The server may or may not have synthesized the text; it was not requested again.
            TransportError: The server could not be reached. Nothing was synthesized.
            APIError: The server rejected the text. Nothing was synthesized.
        """
        wire.check_speech(text, voice_name)
        return await self._session.synthesize(wire.voice_generate(text, voice_name))
