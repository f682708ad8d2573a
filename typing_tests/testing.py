"""What users of the test kit may write. Checked, never run."""

from __future__ import annotations

import a2v
from a2v.testing import Call, FixedWindow, Reply, Service, run_in_virtual_time


def answer(call: Call) -> Reply | None:
    """Answers a call."""
    return Reply.refusal(503, call.name) if call.at < 10 else None


async def answer_slowly(call: Call) -> Reply:
    """Answers a call too."""
    return Reply.success({"video_id": call.video_id})


async def main(service: Service, count: int) -> int:
    """Uses a service."""
    async with a2v.AsyncA2V("token", transport=service.transport()) as client:
        return len(await client.characters.list()) + count


service = Service(
    render_seconds=lambda submit: 60 if submit.model_id == "quick" else 900,
    poll_statuses=["pending", "finished"],
    characters=[a2v.Character(model_id="ada")],
    avatars=(a2v.Avatar(avatar_id="a"),),
    limit=FixedWindow(30, reset="delta"),
)
service.render_seconds = 5
service.reply("video.get", answer, times=None)
service.reply("video.get", answer_slowly)
service.reply("video.get", TimeoutError())
service.refuse("video.got")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no such call
number: int = run_in_virtual_time(main, service, 1, backend="trio")
audio_url: str = service.submissions[0].audio_url
service.calls[0].at = 1.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # frozen
