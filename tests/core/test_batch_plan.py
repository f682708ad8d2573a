"""How jobs are matched with the journal, and what a run does with them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import a2v
from a2v._core.batch_options import BatchOptions
from a2v._core.batch_plan import Action, FolderState, plan_batch
from a2v._core.file_names import default_paths, mask_path
from a2v._core.job_matching import job_digest, match_jobs, repeated_jobs
from a2v._core.journal_rows import JournalRow
from a2v._core.url_signatures import without_query
from a2v._values.jobs import JobState

AUDIO = "https://example.com/a.wav"
FOLDER = Path("/videos")
SIGNED = "?AWSAccessKeyId=k&Expires={0}&Signature=s{0}"


def job(url: str = AUDIO, name: str | None = None, **more: object) -> a2v.Job:
    return a2v.Job("eva_a0008", url, name, **more)


def known(*jobs: a2v.Job, state: JobState = JobState.DONE, **facts: object) -> list[JournalRow]:
    """Return the rows of a journal in which an earlier run left these jobs in a state."""
    matches = match_jobs(jobs, [], default_paths(jobs, FOLDER)).matches
    return [
        JournalRow(
            identity=one.identity,
            place=place,
            job=evolve(one.job, audio_url=without_query(one.job.audio_url)),
            state=state,
            video_id=None if state is JobState.PENDING else f"v{place + 1}",
            path=str(one.path) if state is JobState.DONE else None,
            **facts,
        )
        for place, one in enumerate(matches)
    ]


def videos(jobs, rows, recordings=None) -> list[str | None]:
    """Return the existing video of each job."""
    matching = match_jobs(jobs, rows, [None] * len(jobs), recordings)
    assert len({one.identity for one in matching.matches}) == len(jobs)
    return [one.row.video_id if one.row else None for one in matching.matches]


class TestIdentity:
    def test_the_same_again(self) -> None:
        jobs = [job(), job(), job(AUDIO + "?take=2"), job()]
        assert videos(jobs, known(*jobs)) == ["v1", "v2", "v3", "v4"]

    @given(st.lists(st.integers(0, 5), max_size=12), st.integers())
    def test_the_order_does_not_matter(self, numbers, seed) -> None:
        jobs = [job(f"{AUDIO}?n={n}") for n in numbers]
        before = known(*jobs)
        shuffled = random.Random(seed).sample(jobs, len(jobs))
        matching = match_jobs(shuffled, before, [None] * len(jobs))
        assert not matching.gone
        for one in matching.matches:
            assert one.row
            assert one.row.digest == job_digest(one.job)

    def test_parameters_named_like_a_signature_count(self) -> None:
        english, german = (job(f"https://tts.example/say?text=hello&sv={language}") for language in ("en", "de"))
        assert videos([german, english], known(english, german)) == ["v2", "v1"]

    def test_another_signature(self) -> None:
        assert videos([job(AUDIO + SIGNED.format(2))], known(job(AUDIO + SIGNED.format(1)))) == ["v1"]

    def test_facts_that_are_not_submitted_do_not_count(self) -> None:
        assert videos([job(name="a", extra={"row": 1})], known(job(name="b"))) == ["v1"]
        poses = [a2v.Job(pose_id="front", audio_url=AUDIO, with_mask=mask) for mask in (True, False)]
        assert len({job_digest(one) for one in (*poses, job())}) == 3

    def test_equal_jobs_are_matched_by_name(self) -> None:
        before = known(job(name="two"), job("https://example.com/3.wav", "three"))
        again = [job(name="one"), job(name="two"), job("https://example.com/3.wav", "three")]
        assert videos(again, before) == [None, "v1", "v2"]

    @pytest.mark.parametrize(
        ("before", "now", "found"),
        [
            ("ab", "ba", ["v2", "v1"]),
            ("ab", "cab", [None, "v1", "v2"]),
            ("ab", "cb", ["v1", "v2"]),
            ("ab", "cd", ["v1", "v2"]),
            ("ab", "b", ["v2"]),
            ("-a-", "a--", ["v2", "v1", "v3"]),
            ("-a", "b-a", [None, "v1", "v2"]),
            ("--", "---", ["v1", "v2", None]),
            ("", "aa", [None, None]),
        ],
    )
    def test_by_name_and_then_by_order(self, before, now, found) -> None:
        """Equal jobs by name; ``-`` has none."""

        def named(names):
            return [job(name=None if name == "-" else name) for name in names]

        assert videos(named(now), known(*named(before))) == found

    def test_repeated_jobs_are_those_that_ask_for_the_same_video(self) -> None:
        a, b = a2v.Job("eva", AUDIO), a2v.Job("leo", AUDIO)
        pose, masked = a2v.Job(pose_id="eva", audio_url=AUDIO), a2v.Job(pose_id="eva", audio_url=AUDIO, with_mask=True)
        named, signed = a2v.Job("eva", AUDIO, "again", extra={"x": 1}), a2v.Job("leo", AUDIO + SIGNED.format(1))

        assert repeated_jobs([a, b, pose, named, masked, signed, a]) == [(0, 3, 6), (1, 5)]
        assert repeated_jobs([a, b]) == []


class TestAmbiguity:
    OLD, NEW = job(AUDIO + "?token=old", "hello"), job(AUDIO + "?token=new", "hello")

    @pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PENDING])
    def test_only_the_query_differs(self, state) -> None:
        before = known(self.OLD, state=state)
        with pytest.raises(a2v.AmbiguousJobsError) as caught:
            videos([self.NEW], before)
        message = str(caught.value)
        assert "job 1 (hello)" in message
        assert f"hello (job 1 of the last run, {state}, video v1)" in message
        assert 'recordings="same"' in message
        assert 'recordings="new"' in message
        assert "token" not in message
        ((place, entry),) = caught.value.pairs
        assert (place, entry.video_id, entry.place) == (0, "v1", 0)
        assert videos([self.NEW], before, "same") == ["v1"]
        assert videos([self.NEW], before, "new") == [None]

    def test_all_at_once(self) -> None:
        old, new = (
            [job(f"{AUDIO}?{run}={n}", None if n % 2 else f"n{n}") for n in range(120)] for run in ("old", "new")
        )
        before = [evolve(row, path=None) for row in known(*old)]
        with pytest.raises(a2v.AmbiguousJobsError) as caught:
            videos(new, before)
        assert len(caught.value.pairs) == 120
        assert "job 4 of the last run (done, video v4)" in str(caught.value)
        assert "and 20 more" in str(caught.value)
        assert videos(new, before, "same")[::2] == [f"v{n}" for n in range(1, 121, 2)]

    def test_a_job_of_an_earlier_run(self) -> None:
        (row,) = known(job(AUDIO + "?old"), state=JobState.SUBMITTED)
        with pytest.raises(a2v.AmbiguousJobsError, match=r"may be an earlier job \(submitted, video v1\)"):
            videos([self.NEW], [evolve(row, place=None)])

    def test_as_the_same_they_are_known_by_their_new_urls(self) -> None:
        (row,) = known(self.OLD)
        (one,) = match_jobs([self.NEW], [row], [None], "same").matches
        taken = evolve(row, identity=one.identity)
        assert videos([self.NEW], [taken]) == ["v1"]

    def test_paired_by_name_first(self) -> None:
        old = [job(f"{AUDIO}?old={name}", name) for name in "ab"]
        new = [job(f"{AUDIO}?new={name}", name) for name in "cba"]
        assert videos(new, known(*old), "same") == [None, "v2", "v1"]

    @pytest.mark.parametrize(
        "other",
        [
            a2v.Job("leo", AUDIO + "?token=new"),
            a2v.Job(pose_id="eva_a0008", audio_url=AUDIO + "?token=new"),
            a2v.Job("eva_a0008", "https://example.com/b.wav?token=new"),
            a2v.Job("eva_a0008", "http://example.com/a.wav?token=new"),
            a2v.Job("eva_a0008", "https://example.com:8443/a.wav?token=new"),
        ],
    )
    def test_other_jobs_are_new(self, other) -> None:
        assert videos([other], known(self.OLD)) == [None]

    def test_a_row_that_still_has_its_job_is_not_ambiguous(self) -> None:
        assert videos([self.OLD, self.NEW], known(self.OLD)) == ["v1", None]

    def test_a_row_that_was_never_submitted_is_not_ambiguous(self) -> None:
        assert videos([self.NEW], known(self.OLD, state=JobState.PENDING)) == [None]


def planned(jobs, rows, files=None, **choices):
    matching = match_jobs(jobs, rows, default_paths(jobs, FOLDER), choices.get("recordings"))
    saved = {one.index for one in matching.matches if one.row and one.row.path}
    return plan_batch(matching, files or FolderState(saved=saved), BatchOptions(**choices))


def actions(jobs, rows, files=None, **choices) -> list[Action]:
    return [step.action for step in planned(jobs, rows, files, **choices).steps]


class TestActions:
    @pytest.mark.parametrize(
        ("state", "action"),
        [
            (JobState.PENDING, Action.SUBMIT),
            (JobState.UNKNOWN, Action.RECONCILE),
            (JobState.SUBMITTED, Action.FOLLOW),
            (JobState.FINISHED, Action.FOLLOW),
            (JobState.DONE, Action.REPORT),
            (JobState.FAILED, Action.REPORT),
            (JobState.REJECTED, Action.REPORT),
        ],
    )
    def test_by_state(self, state, action) -> None:
        assert actions([job()], known(job(), state=state)) == [action]
        repeated = Action.SKIP if state.is_terminal else action
        assert actions([job()], known(job(), state=state, reported=True)) == [repeated]
        assert actions([job()], known(job(), state=state, reported=True), repeat=True) == [action]

    @pytest.mark.parametrize(
        ("state", "option"),
        [
            (JobState.UNKNOWN, {"resubmit_unknown": True}),
            (JobState.UNKNOWN, {"resubmit_unknown": [0]}),
            (JobState.FAILED, {"resubmit_failed": True}),
            (JobState.REJECTED, {"resubmit_failed": True}),
        ],
    )
    def test_by_choice(self, state, option) -> None:
        rows = known(job(), state=state)
        plan = planned([job()], rows, **option)
        assert [(step.state_found, step.state, step.action) for step in plan.steps] == [
            (state, JobState.PENDING, Action.SUBMIT)
        ]
        assert planned([job()], rows).submissions == 0
        assert planned([job()], rows, resubmit_unknown=[1]).submissions == 0

    def test_limit_and_quota(self) -> None:
        jobs = [job(f"https://example.com/{n}.wav") for n in range(5)]
        rows = known(*jobs[:2])
        assert actions(jobs, rows, limit=2)[2:] == [Action.SUBMIT, Action.SUBMIT, Action.DEFER]
        assert planned(jobs, rows, quota=3).submissions == 3
        assert planned(jobs, rows, limit=1, quota=1).submissions == 1
        with pytest.raises(a2v.ConfigurationError, match=r"submit 3 videos, and the quota is 2\..*limit=2"):
            planned(jobs, rows, quota=2)
        with pytest.raises(a2v.ConfigurationError, match="submit 1 video, and"):
            planned(jobs, rows, limit=1, quota=0)

    def test_a_missing_file_is_fetched_again(self) -> None:
        (step,) = planned([job(name="a")], known(job(name="a")), FolderState()).steps
        assert (step.state_found, step.action, step.outputs) == (JobState.FINISHED, Action.FOLLOW, (FOLDER / "a.mp4",))

    def test_without_a_folder_no_file_is_missing(self) -> None:
        matching = match_jobs([job()], known(job()), [None])
        assert [step.action for step in plan_batch(matching, FolderState(), BatchOptions()).steps] == [Action.REPORT]


class TestFilesInTheWay:
    ZERO, ONE = job("https://example.com/0.wav", "zero"), job("https://example.com/1.wav", "one")
    AGAIN = job("https://example.com/0-again.wav", "zero")
    THERE = FolderState(existing={FOLDER / "zero.mp4", FOLDER / "one.mp4"}, saved={1})

    def test_a_changed_recording_concerns_its_own_job(self) -> None:
        rows = known(self.ZERO, self.ONE)
        plan = planned([self.AGAIN, self.ONE], rows, self.THERE)
        changed, same = plan.steps
        assert (changed.action, same.action, plan.submissions) == (Action.REFUSE, Action.REPORT, 0)
        assert "the recording of 'zero' has changed" in changed.problem
        assert "overwrite=True" in changed.problem
        assert "for which you pay" in changed.problem
        assert changed.outputs == ()
        assert planned([self.AGAIN, self.ONE], rows, self.THERE, quota=0).submissions == 0
        assert planned([self.AGAIN, self.ONE], rows, self.THERE, overwrite=True).submissions == 1

    def test_in_a_folder_that_was_moved(self) -> None:
        rows = [evolve(row, path=f"/old/{row.job.name}.mp4") for row in known(self.ZERO, self.ONE)]
        changed, same = planned([self.AGAIN, self.ONE], rows, self.THERE).steps
        assert (changed.action, same.action) == (Action.REFUSE, Action.REPORT)
        assert "the recording of 'zero' has changed" in changed.problem

    def test_a_changed_character(self) -> None:
        leo = a2v.Job("leo", self.ZERO.audio_url, "zero")
        (changed,) = planned([leo], known(self.ZERO), self.THERE).steps
        assert "the character, pose, mask or options of 'zero' has changed" in changed.problem

    def test_a_mask_in_the_way(self) -> None:
        one, other = (
            a2v.Job(pose_id="p", audio_url=f"https://example.com/{n}.wav", name="zero", with_mask=True) for n in (1, 2)
        )
        files = FolderState(existing={FOLDER / "zero.mask.mp4"})
        (changed,) = planned([other], known(one), files).steps
        assert "since /videos/zero.mask.mp4 was made" in changed.problem
        (fresh,) = planned([other], []).steps
        assert fresh.outputs == (FOLDER / "zero.mp4", FOLDER / "zero.mask.mp4")

    @pytest.mark.parametrize("state", [JobState.UNKNOWN, JobState.SUBMITTED, JobState.FINISHED])
    def test_a_video_that_is_paid_for_already(self, state) -> None:
        files = FolderState(existing={FOLDER / "zero.mp4"})
        (step,) = planned([self.ZERO], known(self.ZERO, state=state), files).steps
        assert (step.action, step.state) == (Action.REFUSE, state)
        assert "exists already" in step.problem
        assert "nothing is paid for again" in step.problem
        assert planned([self.ZERO], known(self.ZERO, state=state), files, overwrite=True).steps[0].outputs

    def test_an_unknown_job_has_no_video_to_name(self) -> None:
        files = FolderState(existing={FOLDER / "zero.mp4"})
        rows = [evolve(row, video_id=None) for row in known(self.ZERO, state=JobState.UNKNOWN)]
        (step,) = planned([self.ZERO], rows, files).steps
        assert step.problem.endswith("overwrite=True to replace it")

    def test_a_foreign_file_is_left_to_the_caller(self) -> None:
        (step,) = planned([self.ZERO], [], FolderState(existing={FOLDER / "zero.mp4"})).steps
        assert (step.action, step.outputs) == (Action.SUBMIT, (FOLDER / "zero.mp4",))


def places(jobs, rows) -> list[str]:
    return [one.path.name for one in match_jobs(jobs, rows, default_paths(jobs, FOLDER)).matches]


class TestPlaces:
    X, Y, Z = (job(f"https://example.com/{n}.wav") for n in "xyz")

    def test_jobs_without_a_name_keep_their_files(self) -> None:
        rows = known(self.X, self.Y)
        assert places([self.Y, self.Z, self.X], rows) == ["0002.mp4", "0004.mp4", "0001.mp4"]

    def test_a_file_name_that_another_job_needs_is_not_kept(self) -> None:
        rows = known(job("https://example.com/x.wav", "a"))
        assert places([self.X, job("https://example.com/y.wav", "a")], rows) == ["0001.mp4", "a.mp4"]
        four = job("https://example.com/n.wav", "0004")
        assert places([self.Z, self.Y, four], known(self.X)) == ["0005.mp4", "0002.mp4", "0004.mp4"]

    def test_files_beside_a_video_belong_to_one_job(self) -> None:
        """Also if the videos themselves have different extensions."""
        x, y, z = (
            evolve(one, options={"captions": "files", "container": container})
            for one, container in ((self.X, "mp4"), (self.Y, "webm"), (self.Z, "gif"))
        )
        assert places([y, x], known(x)) == ["0003.webm", "0001.mp4"]
        assert places([z, y], known(x)) == ["0003.gif", "0002.webm"]
        assert places([evolve(y, name="0001"), x], known(x)) == ["0001.webm", "0002.mp4"]

    def test_a_folder_that_was_moved_makes_no_difference(self) -> None:
        rows = [evolve(row, path="/elsewhere/0007.mp4") for row in known(self.X)]
        assert places([self.X], rows) == ["0007.mp4"]

    def test_two_jobs_do_not_keep_one_file(self) -> None:
        rows = [evolve(row, path=str(FOLDER / "a.mp4")) for row in known(self.X, self.Y)]
        assert places([self.X, self.Y], rows) == ["a.mp4", "0002.mp4"]

    @pytest.mark.parametrize(
        "names", [("a", "A"), ("0002", None), ("x", "x.mask"), ("x.MASK", "X"), (None, "0001.mask")]
    )
    def test_names_that_collide(self, names) -> None:
        jobs = [
            a2v.Job(
                pose_id="p",
                audio_url=AUDIO,
                name=name,
                with_mask=place == names.index(min(names, key=lambda n: len(n or ""))),
            )
            for place, name in enumerate(names)
        ]
        with pytest.raises(a2v.ManifestError, match="used more than once"):
            default_paths(jobs, FOLDER)
        assert default_paths(jobs, None) == [None, None]

    def test_masks(self) -> None:
        assert mask_path(FOLDER / "a.b.mp4") == FOLDER / "a.b.mask.mp4"
