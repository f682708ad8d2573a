from __future__ import annotations

import numpy as np
import pytest

from a2v.engine.animation import animate, has_speech, most_likely_visemes
from a2v.engine.face_pose import MOUTH_SHAPES, VISEMES, FacePose, Mood


def rows(script: str, sure: float = 0.9) -> np.ndarray:
    """Return probabilities for a sequence of visemes, a letter per 10 ms."""
    likely = np.full((len(script), 9), (1 - sure) / 8, np.float32)
    for at, name in enumerate(script):
        likely[at, VISEMES.index(name)] = sure
    return likely


def levels(script: str) -> np.ndarray:
    return np.array([-80.0 if name == "X" else -20.0 for name in script], np.float32)


def play(script: str, seed: int = 1) -> list[FacePose]:
    return list(animate(rows(script), levels(script), seed=seed))


@pytest.mark.parametrize(
    ("script", "expected"),
    [("X" * 500, False), ("XAX" * 9, False), ("X" * 500 + "DDD", False), ("X" * 500 + "DDDDDD", True)],
)
def test_speech_is_an_open_mouth_for_as_long_as_a_syllable(script: str, expected: object) -> None:
    assert has_speech(rows(script)) is expected


def test_there_is_a_pose_for_every_frame() -> None:
    assert len(play("X" * 100)) == 25
    assert len(play("X" * 101)) == 26
    assert play("") == []
    assert len(play("X")) == 1


def test_the_seed_determines_the_animation() -> None:
    script = "X" * 50 + "DB" * 100 + "X" * 50
    assert play(script, 7) == play(script, 7)
    assert play(script, 7) != play(script, 8)


def test_the_mouth_is_shut_in_silence_and_open_in_vowels() -> None:
    animation = play("X" * 100 + "D" * 100 + "X" * 100)
    assert max(pose.mouth.open for pose in animation[:20]) < 0.05
    assert min(pose.mouth.open for pose in animation[30:45]) > 0.6
    assert max(pose.mouth.open for pose in animation[56:]) < 0.05


def test_the_lips_do_not_lag_behind_the_sound() -> None:
    animation = play("X" * 100 + "D" * 100)
    # The sound begins at frame 25. By then the lips are open, and they part just before.
    assert animation[25].mouth.open > 0.5
    assert animation[23].mouth.open < 0.1


@pytest.mark.parametrize("length", [3, 6, 10])
def test_lips_meet_for_short_closures(length: int) -> None:
    for offset in range(4):  # at any position relative to the frames
        animation = play("D" * (60 + offset) + "A" * length + "D" * 60)
        shut = min(animation, key=lambda pose: pose.mouth.open)
        assert shut.mouth.open < 0.12
        assert animation[5].mouth.open > 0.6


def test_teeth_touch_the_lip_for_f() -> None:
    animation = play("D" * 60 + "G" * 8 + "D" * 60)
    assert max(pose.mouth.tuck for pose in animation) > 0.6


def test_louder_speech_opens_the_mouth_wider() -> None:
    script = "C" * 200
    level = np.full(200, -20.0, np.float32)
    level[:100] -= 18
    animation = list(animate(rows(script), level, seed=1))
    assert animation[10].mouth.open < 0.85 * animation[40].mouth.open


def test_the_mouth_does_not_flicker_between_equally_likely_visemes() -> None:
    likely = rows("CCCCCCBBBBBB" * 16, 0.16)  # alternately, one is slightly ahead
    likely[:, VISEMES.index("C")] += 0.2
    likely[:, VISEMES.index("B")] += 0.2
    likely /= likely.sum(1, keepdims=True)
    animation = list(animate(likely, np.full(len(likely), -20.0, np.float32), seed=1))
    assert np.ptp([pose.mouth.open for pose in animation[4:-4]]) < 0.06


@pytest.mark.parametrize(("sound", "is_kept"), [("BBB", False), ("B" * 8, True), ("AAA", True)])
def test_only_lips_that_close_may_do_so_for_a_moment(sound: str, is_kept: object) -> None:
    """Any other viseme lasts longer, so one of 30 ms is an error of the network."""
    labels = most_likely_visemes(rows("D" * 40 + sound + "D" * 40))
    assert (VISEMES.index(sound[0]) in labels) is is_kept


def test_mouths_move_without_jumps() -> None:
    openness = np.array([pose.mouth.open for pose in play(("X" * 12 + "D" * 12 + "B" * 12 + "E" * 12) * 8)])
    assert np.abs(np.diff(openness)).max() < 0.5
    assert np.abs(np.diff(openness)).max() > 0.1


def test_a_mouth_takes_70_ms_to_open_after_a_closure() -> None:
    for offset in range(4):
        openness = np.array([pose.mouth.open for pose in play("D" * (60 + offset) + "A" * 8 + "D" * 60)])
        assert openness.min() < 0.05
        assert np.abs(np.diff(openness)).max() < 0.5


def test_eyes_blink_at_a_human_pace() -> None:
    blinks = np.array([pose.blink for pose in play("X" * 6000)])
    begins = int(((blinks[1:] > 0.5) & (blinks[:-1] <= 0.5)).sum())
    assert 10 <= begins <= 35  # per minute
    assert blinks.max() == 1


def test_idle_motion_stays_within_natural_ranges() -> None:
    script = ("X" * 30 + "DBCEA" * 14) * 60
    for pose in play(script):
        assert abs(pose.yaw) <= 1.6
        assert abs(pose.roll) <= 5
        assert abs(pose.pitch) <= 2
        assert abs(pose.gaze_x) <= 1.2
        assert all(np.isfinite(value) for value in (*pose.mouth, *pose[1:]))


PHRASES = "X" * 100 + "DBCEA" * 40 + "X" * 80 + "DBCEA" * 40 + "X" * 80 + "DBCEA" * 40 + "X" * 100
STARTS = 25, 95, 165  # frames


def test_each_phrase_has_a_posture_that_is_reached_soon_and_held() -> None:
    for seed in range(6):
        lean = np.array([pose.lean for pose in play(PHRASES, seed)])
        held = [lean[start + 25 : start + 48] for start in STARTS]
        assert all(np.ptp(values) < 0.35 for values in held)
        assert max(values.mean() for values in held) - min(values.mean() for values in held) > 0.3
        assert np.ptp(lean) > 1
        assert np.abs(np.diff(lean)).max() < 0.15  # nothing jumps


def test_the_eyes_move_before_the_head_does() -> None:
    leads = []
    for seed in range(12):
        animation = play(PHRASES, seed)
        for start in STARTS[1:]:
            yaw = np.array([pose.yaw for pose in animation[start - 8 : start + 12]])
            # Where the eyes look, apart from what keeps them on the viewer.
            gaze = np.array([pose.gaze_x for pose in animation[start - 8 : start + 12]]) + 0.4 * yaw
            glances, turns = (
                np.flatnonzero(np.abs(np.diff(values)) > least) for values, least in ((gaze, 0.15), (yaw, 0.05))
            )
            if len(glances) and len(turns):
                leads.append(turns[0] - glances[0])
    assert len(leads) >= 8
    assert 3 <= np.median(leads) <= 7


def test_a_speaker_looks_at_the_viewer_at_the_end_of_a_phrase() -> None:
    # Most glances end before that anyway, so one seed would not show a fault.
    for seed in range(8):
        animation = play(PHRASES, seed)
        for start in STARTS:
            for pose in animation[start + 44 : start + 50]:
                assert abs(pose.gaze_x + 0.4 * pose.yaw) < 0.1


def test_the_chest_rises_before_the_first_word_and_everything_settles_after_the_last() -> None:
    animation = play("X" * 100 + "DBCEA" * 60 + "X" * 200)
    breath = [pose.breath for pose in animation]
    assert breath[23] > max(breath[5], breath[60], 0.8)
    turned, settled = animation[90], animation[-10]
    assert abs(settled.lean) < 0.8 * abs(turned.lean)


def test_what_hangs_from_the_head_swings_when_the_head_moves_and_then_comes_to_rest() -> None:
    swing = np.array([pose.swing for pose in play("X" * 100 + "D" * 300)])
    assert np.abs(swing[25:45]).max() > 3 * np.abs(swing[85:]).max()


def test_a_speaker_smiles_more_in_pauses() -> None:
    animation = play("X" * 100 + "BC" * 150 + "X" * 200)
    smiles = [np.mean([pose.mouth.smile for pose in animation[at : at + 20]]) for at in (50, 135)]
    assert smiles[1] > smiles[0] + 0.1


def test_a_smile_does_not_flicker_with_the_visemes() -> None:
    smiles = np.array([pose.mouth.smile for pose in play("BCDBAC" * 100)])
    assert np.abs(np.diff(smiles)).max() < 0.12


def test_a_mood_changes_the_expression_and_nothing_else() -> None:
    script = "X" * 50 + "DBCEA" * 40 + "X" * 50

    def mean(mood: Mood | None, field: str) -> float:
        poses = list(animate(rows(script), levels(script), seed=3, mood=mood))
        return float(np.mean([pose.mouth.smile if field == "smile" else getattr(pose, field) for pose in poses]))

    assert mean("concerned", "smile") + 0.3 < mean(None, "smile") < mean("warm", "smile") - 0.15
    assert mean("warm", "cheeks") > mean(None, "cheeks") + 0.3
    assert mean("concerned", "inner_brow") > mean(None, "inner_brow") + 0.4
    assert mean("thoughtful", "inner_brow") < mean(None, "inner_brow") - 0.2
    assert mean("surprised", "brow") > mean(None, "brow") + 0.4
    assert mean("surprised", "squint") < mean(None, "squint") - 0.3
    assert mean("warm", "yaw") == mean(None, "yaw")


def test_the_head_moves_and_breathes_even_in_silence() -> None:
    animation = play("X" * 1000)
    assert np.ptp([pose.yaw for pose in animation]) > 0.1
    assert np.ptp([pose.breath for pose in animation]) > 1.5


def test_every_viseme_has_a_shape() -> None:
    assert set(MOUTH_SHAPES) == set(VISEMES)
    assert MOUTH_SHAPES["A"].open == MOUTH_SHAPES["X"].open == 0
