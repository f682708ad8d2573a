"""An account as its members know it: whose turn it is, and what happens when a member crashes. Times are passed in."""

from __future__ import annotations

import pytest

from a2v import NotFoundError, Video, VideoStatus
from a2v._core.account_log import HEARTBEAT, LOST_AFTER, AccountLog, end_fact, seen_fact
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._core.sealing import Sealer
from a2v._core.settings import Secret

CALL, SUBMIT, GET, LIST = RequestKind.CALL, RequestKind.SUBMIT, RequestKind.GET, RequestKind.LIST
HEADERS = {"x-ratelimit-total": "30", "x-ratelimit-left": "25", "x-ratelimit-reset": "50", "set-cookie": "secret"}


class Account:
    """A log with several members, of which the test is ``me``."""

    def __init__(self, limit: int | None = 30) -> None:
        self.log = AccountLog("me", RateLimiter(limit, jitter=lambda: 0.0))
        self.now = 1000.0

    def write(self, member: str, *facts: list) -> list:
        return self.log.apply(member, self.now, facts)

    def next(self, *waits: RequestKind, awaited: bool = True):
        return self.log.next(self.now, set(waits), lambda _: awaited, awaits_any=awaited)

    def know_limit(self) -> None:
        """Let a request of the test show the limit."""
        self.write("me", ["send", 0, "call", None], end_fact(0, "good", HEADERS | {"x-ratelimit-left": "29"}))


@pytest.fixture
def account() -> Account:
    account = Account()
    account.know_limit()
    return account


def test_members_that_wait_take_turns(account) -> None:
    """The one that was served least recently is next."""
    account.write("other", ["wait", ["call"]])
    account.write("me", ["send", 1, "call", None])
    assert account.next(CALL).at > account.now
    account.write("other", ["send", 1, "call", None], ["wait", ["call"]])
    assert account.next(CALL).at == account.now
    account.write("me", ["send", 2, "call", None])
    assert account.next(CALL).at > account.now


def test_new_members_come_after_those_that_wait() -> None:
    """Otherwise programs that start all the time would starve one that runs for long."""
    account = Account()
    assert account.next(CALL).at == account.now
    account.know_limit()
    for number in range(5):
        account.write(f"new{number}", ["wait", ["call"]])
        assert account.next(CALL).at == account.now
    account.write("me", ["send", 1, "call", None])
    for number in range(5):
        assert account.next(CALL).at > account.now
        account.write(f"new{number}", ["send", 1, "call", None], ["wait", ["call"]])
    assert account.next(CALL).at == account.now


def test_a_turn_that_was_missed_is_missed_for_all(account) -> None:
    """Only the first member has to wait for one that has crashed, not each of them, and not those that join later."""
    account.write("crashed", ["wait", ["call", "submit"]])
    account.write("other", ["wait", ["call"]])
    account.write("me", ["send", 1, "call", None])
    account.write("other", ["send", 1, "call", None], ["wait", []])
    assert account.next(CALL).at == account.now
    account.write("crashed", ["wait", ["call"]])  # it was only late
    assert account.next(CALL).at > account.now


def test_many_crashed_members_delay_a_call_hardly_more_than_one(account) -> None:
    for number in range(20):
        account.write(f"crashed{number}", ["wait", ["call"]])
    account.write("me", ["send", 1, "call", None])
    began = account.now
    while (turn := account.next(CALL)).at > account.now:
        account.now = turn.at
    assert account.now - began < 2


def test_a_member_that_does_not_take_its_turn_is_skipped_until_it_writes(account) -> None:
    account.write("other", ["wait", ["submit"]])
    account.write("me", ["send", 9, "submit", None])
    turn = account.next(SUBMIT)
    assert account.now < turn.at <= account.now + 1
    account.now = turn.at
    assert account.next(SUBMIT).at == account.now
    account.write("me", ["send", 1, "submit", None])
    assert account.next(SUBMIT).at == account.now
    account.write("other", ["wait", ["submit"]])
    assert account.next(SUBMIT).at > account.now


def test_a_poll_is_sent_by_a_member_that_awaits_it_or_a_little_later_by_another(account) -> None:
    account.write("other", ["follow", "v", None])
    poll = account.next(awaited=False)
    assert (poll.kind, poll.video_id) == (GET, "v")
    assert account.now < poll.at <= account.now + 1
    account.now = poll.at
    assert account.next(awaited=False).at == account.now
    account.write("me", ["follow", "w", None])
    assert account.next() == poll.__class__(LIST, account.now)


def test_a_member_without_videos_leaves_lists_to_others(account) -> None:
    account.write("other", ["follow", "v", None], ["follow", "w", None])
    turn = account.next(awaited=False)
    assert (turn.kind, turn.at > account.now) == (LIST, True)


def test_the_requests_of_a_lost_member_count_for_one_window(account) -> None:
    account.write("other", *(["send", number, "call", None] for number in range(1, 6)))
    assert account.log.limiter.in_flight == 5
    account.now += LOST_AFTER
    account.next()
    assert account.log.limiter.in_flight == 0
    assert account.log.limiter.left(account.now) == 24
    account.now += 60.5 - LOST_AFTER
    assert account.log.limiter.left(account.now) == 30


def test_the_polls_of_a_lost_member_are_due_again(account) -> None:
    account.write("me", ["follow", "v", None])
    account.write("other", ["send", 1, "get", "v"])
    assert account.next() is None or account.next().at > account.now + 100
    account.now += LOST_AFTER
    assert account.next().video_id == "v"


def test_a_poll_that_takes_long_is_sent_by_another_member(account) -> None:
    """Its event loop may be blocked: it writes nothing, or only later."""
    account.write("me", ["follow", "v", None])
    account.write("other", ["send", 1, "get", "v"])
    for _ in range(2):
        account.now += HEARTBEAT
        account.write("other", ["wait", []])
    assert account.next().at == account.now
    late = account.write("other", ["seen", 1, "get", [Video(video_id="v", status=VideoStatus.PENDING).to_dict()]])
    assert [video.status for _, video in late] == [VideoStatus.PENDING]


def test_the_videos_of_a_lost_member_are_forgotten(account) -> None:
    account.write("other", ["follow", "v", None], ["hello", 10])
    account.write("me", ["follow", "w", None])
    assert account.log.limiter.limit == 10
    account.now += LOST_AFTER
    assert account.log.member_count(account.now) == 1
    assert "v" not in account.log.scheduler
    assert "w" in account.log.scheduler


def test_a_member_that_leaves_is_forgotten_at_once(account) -> None:
    account.write("other", ["follow", "v", None], ["wait", ["call"]], ["bye"])
    assert account.next(CALL).at == account.now
    assert "v" not in account.log.scheduler


def test_videos_that_are_not_awaited_are_paused(account) -> None:
    account.write("me", ["follow", "v", None])
    assert account.next(awaited=False) is None
    assert account.log.paused == ["v"]
    assert account.log.has_paused("v")
    account.write("me", ["pause", ["v", "unknown"]])
    account.write("other", ["follow", "v", None])
    assert account.next(awaited=False).video_id == "v"
    account.write("other", ["pause", ["v"]])
    account.write("me", ["resume", ["v", "unknown"]])
    assert account.next().at == account.now


def test_a_fact_that_comes_twice_counts_once(account) -> None:
    """A store may have written it although it has reported a failure."""
    for _ in range(2):
        account.write("other", ["send", 1, "call", None])
        account.write("other", ["sent", 2, account.now - 10, account.now - 9])
    assert account.log.limiter.in_flight == 1
    assert account.log.limiter.left(account.now) == 27


def test_requests_sent_without_the_log_are_added_later(account) -> None:
    account.write("other", ["sent", 7, account.now - 1, None], ["sent", 8, account.now - 50, account.now - 49])
    assert account.log.limiter.in_flight == 1
    assert account.log.limiter.left(account.now) == 27
    account.now += 12
    account.write("other", end_fact(7, "lost"))
    account.now += 49
    assert account.log.limiter.left(account.now) == 29


def test_facts_of_later_versions_are_ignored(account) -> None:
    assert account.write("other", ["invented", 1, 2, 3]) == []


@pytest.mark.parametrize(
    ("how", "left", "delay"), [("good", 25, 0), ("lost", 28, 0), ("unused", 29, 0), ("throttled", 0, 1), ("bad", 25, 0)]
)
def test_how_a_request_ended(account, how, left, delay) -> None:
    account.write("other", ["send", 1, "call", None])
    headers = None if how in ("lost", "unused") else HEADERS
    fact = end_fact(1, how, headers)
    assert "secret" not in str(fact)
    account.write("other", fact)
    assert account.log.limiter.left(account.now) == left
    assert account.log.limiter.delay(account.now) >= delay


def test_an_unavailable_server_pauses_all(account) -> None:
    account.write("other", ["send", 1, "call", None], end_fact(1, "unavailable", {"retry-after": "30"}))
    assert account.next(CALL).at >= account.now + 30


def test_errors_reach_all_who_follow_and_keep_their_class(account) -> None:
    error = NotFoundError("gone", status_code=403)
    account.write("me", ["follow", "v", account.now], ["send", 1, "get", "v"])
    account.log.own_errors[1] = error
    assert account.write("me", ["failed", 1, "get", "v", error.to_dict(), True]) == []
    account.now += 200
    account.write("other", ["send", 1, "get", "v"])
    [(video_id, restored)] = account.write("other", ["failed", 1, "get", "v", error.to_dict(), True])
    assert (video_id, type(restored), restored.status_code) == ("v", NotFoundError, 403)
    assert not account.log.follows("v")


def test_a_list_is_written_briefly(account) -> None:
    """Changes in full, otherwise the status; videos that nobody follows only once."""
    pending = Video(video_id="v", status=VideoStatus.PENDING, raw={"status": "pending", "more": "x"})
    other = Video(video_id="elsewhere", status=VideoStatus.PENDING)
    account.write("me", ["follow", "v", None], ["send", 1, "list", None])
    first = seen_fact(account.log, [pending, other], account.next().__class__(LIST, account.now), 1)
    assert first[3] == [pending.to_dict()]
    assert first[4] == ["elsewhere"]
    account.write("me", first)
    second = seen_fact(account.log, [pending, other], account.next().__class__(LIST, account.now), 2)
    assert second[3:] == [[{"video_id": "v", "status": "pending"}], []]
    assert account.write("me", second) == []
    assert account.log.scheduler.snapshot("v").raw["more"] == "x"
    assert account.log.first_listed == ["elsewhere"]


def test_knowledge_of_a_video_survives_a_new_log(account) -> None:
    video = Video(video_id="v", status=VideoStatus.IN_PROGRESS)
    account.write("me", ["follow", "v", 990.0], ["seen", None, "", [video.to_dict()]])
    known = account.log.scheduler.export_state("v")
    fresh = Account()
    fresh.write("me", ["follow", "v", 990.0, known], ["follow", "v", 990.0, known | {"polled_at": 0.0}])
    assert fresh.log.scheduler.snapshot("v") == video
    assert fresh.log.scheduler.export_state("v") == known
    fresh.now = account.now
    assert fresh.next().at == account.next().at


def test_only_the_token_opens_what_it_has_sealed() -> None:
    sealer = Sealer(Secret("token-1"), "https://a2v.example")
    for text in (b"", b"a secret", b"long " * 1000):
        sealed = sealer.seal(text)
        assert sealer.unseal(sealed) == text
        assert sealed != sealer.seal(text)
        assert b"secret" not in sealed
        for other in (Sealer(Secret("token-2"), "https://a2v.example"), Sealer(Secret("token-1"), "https://b.example")):
            assert other.unseal(sealed) is None
            assert other.fingerprint != sealer.fingerprint
        assert sealer.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
        assert sealer.unseal(sealed[:20]) is None
    assert len(sealer.seal(b"long " * 1000)) < 200


def test_an_unused_poll_is_due_again(account) -> None:
    account.write("other", ["follow", "v", None])
    account.write("me", ["follow", "v", None])
    poll = account.next()
    assert (poll.kind, poll.video_id, poll.at) == (GET, "v", account.now)
    account.write("other", ["send", 1, "get", "v"])
    assert account.next() is None
    account.write("other", end_fact(1, "unused"))
    assert account.next().video_id == "v"


def test_a_member_may_leave_twice(account) -> None:
    """A client that was closed while the store did not answer writes again that it leaves."""
    account.write("other", ["follow", "v", None], ["bye"], ["bye"])
    account.write("other", ["bye"])
    assert account.log.member_count(account.now) == 1
    account.write("other", ["bye"], ["hello", None], ["follow", "v", None])
    assert account.log.member_count(account.now) == 2
    assert account.next() is not None


def test_a_result_counts_once(account) -> None:
    """A member that cannot know whether the store has written a fact writes it again."""
    account.write("other", ["send", 1, "call", None])
    for _ in range(5):
        account.write("other", ["end", 1, "throttled", {}])
    account.now += 3
    assert account.next(CALL).at == account.now


def test_a_limit_survives_the_loss_of_the_log() -> None:
    """Otherwise clients with a higher limit would wait for a minute, because they have sent more than the default one allows."""
    account = Account()
    account.write("me", ["hello", None], ["limit", 600], *(["sent", number, 990.0, 991.0] for number in range(1, 50)))
    assert account.next(CALL).at == account.now
    account.write("me", ["limit", None])
    assert account.log.limiter.limit == 600
