"""A simulated account: what the API does, without HTTP and without a clock.

The time of arrival is passed with every request, so the same requests at the same times get the same answers. The benchmarks use
this class directly.
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
from a2v._core.captions import asks_for_files
from a2v._values import arguments
from a2v._values.models import Avatar, Character, Pose, Speech, Video, VideoStatus, Voice
from a2v.errors import InvalidArgumentError
from a2v.testing._limits import EPOCH, RateLimit
from a2v.testing._values import Submission, Synthesis

if TYPE_CHECKING:
    from a2v._values.jobs import Job

T = TypeVar("T")

EVA = Character(model_id="eva_a0008", name="Eva 01", display_name="Eva 01", gender="female")
_KNOWN = {status.value: status for status in VideoStatus}

Value = str | Video | Speech | list[Video] | list[Character] | list[Avatar] | list[Pose] | list[Voice]


@frozen
class Answer:
    """The result of a call: a value, or the reason of a refusal."""

    status: int
    value: Value | None = None
    message: str = ""
    code: int | None = None


@define(eq=False)
class Render:
    """A video, from its submission on."""

    submission: Submission
    seconds: float
    poll_statuses: Sequence[str] | None = None
    message: str = ""
    failed: bool = False
    starts: float = math.inf
    ends: float = math.inf
    polls: int = 0

    def poll(self, now: float) -> str:
        """Return the status for a poll, and count it."""
        if self.poll_statuses is None:
            statuses = [VideoStatus.PENDING, VideoStatus.IN_PROGRESS, VideoStatus.FINISHED]
            status: str = statuses[(now >= self.starts) + (now >= self.ends)]
        else:
            status = self.poll_statuses[min(self.polls, len(self.poll_statuses) - 1)]
            self.polls += 1
        return VideoStatus.FAILED if self.failed and status == VideoStatus.FINISHED else status

    def has_file(self, now: float) -> bool:
        """Whether polls have shown it as finished."""
        if self.poll_statuses is None:
            return now >= self.ends and not self.failed
        return (
            self.polls >= len(self.poll_statuses) and self.poll_statuses[-1] == VideoStatus.FINISHED and not self.failed
        )


def _check_poll_statuses(_: object, __: Any, statuses: Any) -> None:
    if statuses is not None and (
        isinstance(statuses, str)
        or not isinstance(statuses, Sequence)
        or not statuses
        or not all(isinstance(status, str) for status in statuses)
    ):
        raise InvalidArgumentError(
            f'poll_statuses must be a list such as ["pending", "finished"], got {arguments.short_repr(statuses)}'
        )


def _check_seconds(_: object, attribute: Any, seconds: Any) -> None:
    is_special = {"render_seconds": callable(seconds), "url_seconds": seconds is None}.get(attribute.name, False)
    if not is_special and not (arguments.is_number(seconds) and seconds >= 0):
        raise InvalidArgumentError(f"{attribute.name} must be 0 or more seconds, got {arguments.short_repr(seconds)}")


def _check_limit(_: object, __: Any, limit: object) -> None:
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


def _check_random(_: object, __: object, value: object) -> None:
    if not isinstance(value, Random):
        raise InvalidArgumentError(f"random must be a random.Random, got {arguments.short_repr(value)}")


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


def _voices(given: Iterable[Voice] | None) -> tuple[Voice, ...] | None:
    return _all_of("voices", Voice, given)


@define(eq=False, repr=False, kw_only=True, slots=False)
class Account:
    """The simulated account; `Service` documents the settings."""

    render_seconds: float | Callable[[Submission], float] = field(default=0.0, validator=_check_seconds)
    pending_seconds: float = field(default=0.0, validator=_check_seconds)
    poll_statuses: Sequence[str] | None = field(default=None, validator=_check_poll_statuses)
    renderers: int | None = field(default=None, validator=optional(_check_renderers), on_setattr=frozen_)
    statuses: bool = field(default=True, validator=_check_flag)
    lists_videos: bool = field(default=True, validator=_check_flag)
    characters: Sequence[Character] | None = field(default=None, converter=_characters)
    avatars: Sequence[Avatar] | None = field(default=None, converter=_avatars)
    voices: Sequence[Voice] | None = field(default=None, converter=_voices)
    limit: RateLimit | None = field(default=None, validator=_check_limit)
    quota: int | None = field(default=None, validator=optional(_check_quota))
    token: str | None = field(default=None, validator=optional(_check_token))
    content: bytes | None = field(default=None, validator=optional(_check_content))
    url_seconds: float | None = field(default=None, validator=_check_seconds)
    latency: float = field(default=0.0, validator=_check_seconds)
    error_rate: float = field(default=0.0, validator=_check_share)
    clock_skew: float = field(default=0.0, validator=_check_number)
    _random: Random = field(factory=lambda: Random(0), validator=_check_random)  # noqa: S311  # for tests

    files_url: str = field(default="https://files.example", init=False)
    epoch: float = field(default=EPOCH, init=False)
    _admitted: int = field(default=0, init=False)
    _submissions: list[Submission] = field(factory=list, init=False)
    _syntheses: list[Synthesis] = field(factory=list, init=False)
    _renders: dict[str, Render] = field(factory=dict, init=False)
    _waiting: list[Render] = field(factory=list, init=False)
    # A heap of the times at which the renderers become free; empty: their number is not limited.
    _free_at: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free_at = [0.0] * (self.renderers or 0)

    # -- admission ----------------------------------------------------------------------------------------------------

    def admit(self, now: float) -> tuple[dict[str, str], Answer | None]:
        """Count a request against the rate limit and the quota.

        Returns:
            The headers of its reply, and the refusal if it is refused.
        """
        epoch = self.epoch + self.clock_skew
        headers = {"date": formatdate(math.floor(epoch + now), usegmt=True)}
        if self.limit:
            state = self.limit.arrive(now)
            headers |= self.limit.headers(state, now, epoch)
            if not state.admitted:
                return headers, Answer(429, message="too many requests", code=wire.TOO_MANY_REQUESTS)
        if self.quota is not None and self._admitted >= self.quota:
            return headers, Answer(403, message=f"the account's quota of {self.quota} calls is used up")
        self._admitted += 1
        return headers, None

    # -- calls --------------------------------------------------------------------------------------------------------

    def answer(
        self,
        now: float,
        name: str,
        resource_id: str | None = None,
        job: Job | None = None,
        speech: tuple[str, str] | None = None,
    ) -> Answer:
        """Execute a call.

        Args:
            now: The time of arrival.
            name: The call.
            resource_id: The id of the video or avatar.
            job: The job, for a submission.
            speech: The text and the voice, for a synthesis.
        """
        self._advance(now)
        if speech:
            return self._speak(now, *speech)
        if job:
            return self._generate(now, job)
        if self.error_rate and self._random.random() < self.error_rate:
            return Answer(500, message="one of the errors that error_rate asks for")
        if name == "video.get":
            return self._get(now, resource_id)
        calls: dict[str, Callable[[], Answer]] = {
            "character.list": lambda: Answer(200, [EVA] if self.characters is None else list(self.characters))
        }
        if self.lists_videos:
            calls["video.list"] = lambda: Answer(200, [self._poll(video_id, now) for video_id in self._renders])
        if self.avatars is not None:
            avatars = list(self.avatars)
            calls |= {"avatar.list": lambda: Answer(200, avatars), "avatar-pose.list": lambda: self._poses(resource_id)}
        if self.voices is not None:
            voices = list(self.voices)
            calls["voice.list"] = lambda: Answer(200, voices)
        return calls[name]() if name in calls else Answer(404, message=f"this server has no call {name!r}")

    def _speak(self, now: float, text: str, voice_name: str) -> Answer:
        if self.voices is None:
            return Answer(404, message="this server has no call 'voice.generate'")
        if voice_name not in [voice.voice_name for voice in self.voices]:
            return Answer(404, message=f"there is no voice {voice_name!r}", code=wire.NOT_FOUND)
        if len(text) > wire.MAX_TEXT:
            return Answer(400, message=f"the text has {len(text)} characters, and {wire.MAX_TEXT} are allowed")
        url = self._url(f"speech{len(self._syntheses) + 1}.wav", now)
        self._syntheses.append(Synthesis(at=now, text=text, voice_name=voice_name, url=url))
        return Answer(200, Speech(url=url, text=text, voice_name=voice_name))

    def _generate(self, now: float, job: Job) -> Answer:
        if problem := self._problem(job):
            return Answer(400, message=problem)
        video_id = self._new_id()
        submission = Submission(
            at=now,
            video_id=video_id,
            model_id=job.model_id,
            audio_url=job.audio_url or "",
            pose_id=job.pose_id,
            with_mask=job.with_mask,
            options=job.options,
        )
        seconds = self.render_seconds(submission) if callable(self.render_seconds) else self.render_seconds
        self._submissions.append(submission)
        self._begin(Render(submission, seconds, self.poll_statuses), now)
        return Answer(200, video_id)

    def _problem(self, job: Job) -> str | None:
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
        return Answer(200, self._poll(video_id, now))

    def _poses(self, avatar_id: str | None) -> Answer:
        for avatar in self.avatars or []:
            if avatar.avatar_id == avatar_id:
                return Answer(200, list(avatar.poses))
        return Answer(404, message=f"there is no avatar {avatar_id!r}", code=wire.NOT_FOUND)

    # -- videos -------------------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        number = len(self._submissions) + 1
        while f"v{number}" in self._renders:  # in use by add_video
            number += 1
        return f"v{number}"

    def _begin(self, render: Render, now: float) -> None:
        self._renders[render.submission.video_id] = render
        if self.renderers:
            if not self._waiting and self._free_at[0] < now:
                heapq.heapreplace(self._free_at, now)
            self._waiting.append(render)
            self._advance(now)
        else:
            self._start(render, now)

    def _start(self, render: Render, free_at: float) -> None:
        render.starts = max(free_at, render.submission.at + self.pending_seconds)
        render.ends = render.starts + render.seconds

    def _advance(self, now: float) -> None:
        """Start waiting videos on renderers that have become free."""
        while self._waiting and self._free_at[0] <= now:
            render = self._waiting.pop(self._choose(len(self._waiting)))
            self._start(render, self._free_at[0])
            heapq.heapreplace(self._free_at, render.ends)

    def _choose(self, waiting: int) -> int:  # noqa: ARG002  # for subclasses with another order
        """Return the index of the waiting video to render next."""
        return 0

    def _knows(self, video_id: str, now: float) -> bool:  # noqa: ARG002  # as above
        return video_id in self._renders

    def _poll(self, video_id: str, now: float) -> Video:
        render = self._renders[video_id]
        status = render.poll(now)
        finished = status == VideoStatus.FINISHED
        has_captions = finished and asks_for_files(render.submission.options)
        return Video(
            video_id=video_id,
            status=_KNOWN.get(status, VideoStatus.UNKNOWN),
            video_url=self._url(f"{video_id}.mp4", now) if finished else None,
            mask_video_url=self._url(f"{video_id}-mask.mp4", now) if finished and render.submission.with_mask else None,
            captions_url=self._url(f"{video_id}.vtt", now) if has_captions else None,
            raw={
                "status": status,
                "message": render.message if _KNOWN.get(status, VideoStatus.UNKNOWN).is_terminal else "",
            },
        )

    def _url(self, file: str, now: float) -> str:
        """Return a pre-signed URL; a new one for each poll if URLs expire."""
        expires = "" if self.url_seconds is None else f"expires={now + self.url_seconds:.3f}&"
        return f"{self.files_url}/files/{file}?{expires}signature=s3cret"
