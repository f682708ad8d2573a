"""What the service knows of one account, and what it does: no HTTP, no clock.

Every request comes with the time of its arrival, so the same requests at the same times get the same answers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field, frozen
from attrs.setters import frozen as frozen_
from attrs.validators import optional

from a2v._core import wire
from a2v._values import arguments
from a2v._values.models import Avatar, Character, Pose, Video, VideoStatus
from a2v.errors import InvalidArgumentError
from a2v.testing._limits import EPOCH, RateLimit
from a2v.testing._values import Submit

if TYPE_CHECKING:
    from a2v._values.jobs import Job

T = TypeVar("T")

EVA = Character(model_id="eva_a0008", name="Eva 01", display_name="Eva 01", gender="female")
_KNOWN = {status.value: status for status in VideoStatus}

Value = str | Video | list[Video] | list[Character] | list[Avatar] | list[Pose]


@frozen
class Answer:
    """What is answered to a call: a value, or why there is none."""

    status: int
    value: Value | None = None
    message: str = ""
    code: int | None = None


@define(eq=False)
class Render:
    """One video, from its submission to its end."""

    submit: Submit
    seconds: float
    looks: Sequence[str] | None = None
    message: str = ""
    failed: bool = False
    starts: float = math.inf
    ends: float = math.inf
    looked: int = 0

    def look(self, now: float) -> str:
        """Where it is on its way, for somebody who looks now."""
        if self.looks is None:
            words = [VideoStatus.PENDING, VideoStatus.IN_PROGRESS, VideoStatus.FINISHED]
            word: str = words[(now >= self.starts) + (now >= self.ends)]
        else:
            word = self.looks[min(self.looked, len(self.looks) - 1)]
            self.looked += 1
        return VideoStatus.FAILED if self.failed and word == VideoStatus.FINISHED else word

    def has_file(self, now: float) -> bool:
        """Whether it is finished, as far as looks have told."""
        if self.looks is None:
            return now >= self.ends and not self.failed
        return self.looked >= len(self.looks) and self.looks[-1] == VideoStatus.FINISHED and not self.failed


def _are_looks(_: object, __: Any, looks: Any) -> None:
    if looks is not None and (
        isinstance(looks, str)
        or not isinstance(looks, Sequence)
        or not looks
        or not all(isinstance(look, str) for look in looks)
    ):
        raise InvalidArgumentError(
            f'looks must be a list of statuses such as ["pending", "finished"], got {arguments.short_repr(looks)}'
        )


def _are_seconds(_: object, attribute: Any, seconds: Any) -> None:
    may_be = {"render_seconds": callable(seconds), "url_seconds": seconds is None}.get(attribute.name, False)
    if not may_be and not (arguments.is_number(seconds) and seconds >= 0):
        raise InvalidArgumentError(f"{attribute.name} must be 0 or more seconds, got {arguments.short_repr(seconds)}")


def _is_limit(_: object, __: Any, limit: object) -> None:
    if limit is not None and not isinstance(limit, RateLimit):
        raise InvalidArgumentError(
            f"limit must be a FixedWindow, SlidingWindow, TokenBucket or None, got {arguments.short_repr(limit)}"
        )


def _check_renderers(_: object, __: object, value: Any) -> None:
    arguments.integer("renderers", value, minimum=1)


def _check_quota(_: object, __: object, value: Any) -> None:
    arguments.integer("quota", value, minimum=0)


def _check_flag(_: object, attribute: Any, value: Any) -> None:
    arguments.boolean(attribute.name, value)


def _check_token(_: object, __: object, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidArgumentError("token must be a string or None")


def _check_content(_: object, __: object, value: Any) -> None:
    if not isinstance(value, bytes):
        raise InvalidArgumentError(f"content must be bytes or None, got {arguments.short_repr(value)}")


def _check_share(_: object, attribute: Any, value: Any) -> None:
    arguments.number(attribute.name, value, minimum=0.0, maximum=1.0)


def _check_number(_: object, attribute: Any, value: Any) -> None:
    arguments.number(attribute.name, value)


def _all_of(name: str, kind: type[T], given: Iterable[T] | None) -> tuple[T, ...] | None:
    if given is None:
        return None
    values = tuple(arguments.iterable(name, given, f"{kind.__name__} values"))
    for value in values:
        if not isinstance(value, kind):
            raise InvalidArgumentError(f"{name} must be {kind.__name__} values, got {arguments.short_repr(value)}")
    return values


def _characters(given: Iterable[Character] | None) -> tuple[Character, ...] | None:
    return _all_of("characters", Character, given)


def _avatars(given: Iterable[Avatar] | None) -> tuple[Avatar, ...] | None:
    return _all_of("avatars", Avatar, given)


@define(eq=False, repr=False, kw_only=True, slots=False)
class Account:
    """The service, asked by method calls; `Service` documents the settings."""

    render_seconds: float | Callable[[Submit], float] = field(default=0.0, validator=_are_seconds)
    pending_seconds: float = field(default=0.0, validator=_are_seconds)
    looks: Sequence[str] | None = field(default=None, validator=_are_looks)
    renderers: int | None = field(default=None, validator=optional(_check_renderers), on_setattr=frozen_)
    statuses: bool = field(default=True, validator=_check_flag)
    lists_videos: bool = field(default=True, validator=_check_flag)
    characters: Sequence[Character] | None = field(default=None, converter=_characters)
    avatars: Sequence[Avatar] | None = field(default=None, converter=_avatars)
    limit: RateLimit | None = field(default=None, validator=_is_limit)
    quota: int | None = field(default=None, validator=optional(_check_quota))
    token: str | None = field(default=None, validator=optional(_check_token))
    content: bytes | None = field(default=None, validator=optional(_check_content))
    url_seconds: float | None = field(default=None, validator=_are_seconds)
    latency: float = field(default=0.0, validator=_are_seconds)
    error_rate: float = field(default=0.0, validator=_check_share)
    clock_skew: float = field(default=0.0, validator=_check_number)
    _random: Random = field(factory=lambda: Random(0))  # noqa: S311  # for tests

    files_url: str = field(default="https://files.example", init=False)
    epoch: float = field(default=EPOCH, init=False)
    _admitted: int = field(default=0, init=False)
    _submits: list[Submit] = field(factory=list, init=False)
    _renders: dict[str, Render] = field(factory=dict, init=False)
    _waiting: list[Render] = field(factory=list, init=False)
    # When each renderer will have worked off what it began; none: there are as many as there are videos.
    _free_at: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free_at = [0.0] * (self.renderers or 0)

    # -- may it come in? ----------------------------------------------------------------------------------------------

    def admit(self, now: float) -> tuple[dict[str, str], Answer | None]:
        """Count a request that arrives now.

        Returns:
            The headers of its reply, and why it is refused if it is.
        """
        epoch = self.epoch + self.clock_skew
        headers = {"date": formatdate(math.floor(epoch + now), usegmt=True)}
        if self.limit:
            standing = self.limit.arrive(now)
            headers |= self.limit.headers(standing, now, epoch)
            if not standing.passes:
                return headers, Answer(429, message="too many requests", code=wire.TOO_MANY_REQUESTS)
        if self.quota is not None and self._admitted >= self.quota:
            return headers, Answer(403, message=f"the account's quota of {self.quota} calls is used up")
        self._admitted += 1
        return headers, None

    # -- calls --------------------------------------------------------------------------------------------------------

    def answer(self, now: float, name: str, about: str | None = None, job: Job | None = None) -> Answer:
        """Do what a request asks for.

        Args:
            now: When it arrives.
            name: The call.
            about: The video's or the avatar's id.
            job: What is submitted.
        """
        self._advance(now)
        if job:
            return self._generate(now, job)
        if self.error_rate and self._random.random() < self.error_rate:
            return Answer(500, message="one of the errors that error_rate asks for")
        if name == "video.get":
            return self._get(now, about)
        calls: dict[str, Callable[[], Answer]] = {
            "character.list": lambda: Answer(200, [EVA] if self.characters is None else list(self.characters))
        }
        if self.lists_videos:
            calls["video.list"] = lambda: Answer(200, [self._look(video_id, now) for video_id in self._renders])
        if self.avatars is not None:
            avatars = list(self.avatars)
            calls |= {"avatar.list": lambda: Answer(200, avatars), "avatar-pose.list": lambda: self._poses(about)}
        return calls[name]() if name in calls else Answer(404, message=f"this server has no call {name!r}")

    def _generate(self, now: float, job: Job) -> Answer:
        if problem := self._refusal(job):
            return Answer(400, message=problem)
        video_id = self._new_id()
        submit = Submit(
            at=now,
            video_id=video_id,
            model_id=job.model_id,
            audio_url=job.audio_url,
            pose_id=job.pose_id,
            with_mask=job.with_mask,
        )
        seconds = self.render_seconds(submit) if callable(self.render_seconds) else self.render_seconds
        self._submits.append(submit)
        self._begin(Render(submit, seconds, self.looks), now)
        return Answer(200, video_id)

    def _refusal(self, job: Job) -> str | None:
        if job.pose_id is None:
            known = None if self.characters is None else [character.model_id for character in self.characters]
            missing = known is not None and job.model_id not in known
            return f"there is no character {job.model_id!r}" if missing else None
        if self.avatars is None:
            return "this server knows no poses"
        poses = [pose.pose_id for avatar in self.avatars for pose in avatar.poses]
        return None if job.pose_id in poses else f"there is no pose {job.pose_id!r}"

    def _get(self, now: float, video_id: str | None) -> Answer:
        if video_id is None:
            return Answer(400, message="video_id is missing from the query")
        if not self._knows(video_id, now):
            return Answer(404, message=f"there is no video {video_id!r}", code=wire.NOT_FOUND)
        return Answer(200, self._look(video_id, now))

    def _poses(self, avatar_id: str | None) -> Answer:
        for avatar in self.avatars or []:
            if avatar.avatar_id == avatar_id:
                return Answer(200, list(avatar.poses))
        return Answer(404, message=f"there is no avatar {avatar_id!r}", code=wire.NOT_FOUND)

    # -- videos -------------------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        number = len(self._submits) + 1
        while f"v{number}" in self._renders:  # added by hand
            number += 1
        return f"v{number}"

    def _begin(self, render: Render, now: float) -> None:
        self._renders[render.submit.video_id] = render
        if self.renderers:
            if not self._waiting and self._free_at[0] < now:
                heapq.heapreplace(self._free_at, now)
            self._waiting.append(render)
            self._advance(now)
        else:
            self._start(render, now)

    def _start(self, render: Render, free_at: float) -> None:
        render.starts = max(free_at, render.submit.at + self.pending_seconds)
        render.ends = render.starts + render.seconds

    def _advance(self, now: float) -> None:
        """Let renderers that have become free begin with what waits."""
        while self._waiting and self._free_at[0] <= now:
            render = self._waiting.pop(self._choose(len(self._waiting)))
            self._start(render, self._free_at[0])
            heapq.heapreplace(self._free_at, render.ends)

    def _choose(self, waiting: int) -> int:  # noqa: ARG002  # for subclasses with another order
        """Which of the waiting videos is next, by its place in the line."""
        return 0

    def _knows(self, video_id: str, now: float) -> bool:  # noqa: ARG002  # as above
        return video_id in self._renders

    def _look(self, video_id: str, now: float) -> Video:
        render = self._renders[video_id]
        word = render.look(now)
        finished = word == VideoStatus.FINISHED
        return Video(
            video_id=video_id,
            status=_KNOWN.get(word, VideoStatus.UNKNOWN),
            video_url=self._url(f"{video_id}.mp4", now) if finished else None,
            mask_video_url=self._url(f"{video_id}-mask.mp4", now) if finished and render.submit.with_mask else None,
            raw={"status": word, "message": render.message if word == VideoStatus.FAILED else ""},
        )

    def _url(self, file: str, now: float) -> str:
        """A pre-signed URL; a new one for each look if it expires."""
        expires = "" if self.url_seconds is None else f"expires={now + self.url_seconds:.3f}&"
        return f"{self.files_url}/files/{file}?{expires}signature=s3cret"
