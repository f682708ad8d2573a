"""Settings that are almost valid."""

from __future__ import annotations

import pytest

from a2v.engine import LocalEngine, Settings
from a2v.errors import A2VError


@pytest.mark.parametrize("make", [Settings, LocalEngine])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", 512.0, "512.0"),
        ("size", "512", "'512'"),
        ("size", [512], "[512]"),
        ("fps", 25.0, "25.0"),
        ("fps", True, "True"),
        ("workers", 2.0, "2.0"),
        ("workers", True, "True"),
        ("port", "8000", "'8000'"),
        ("port", 8000.0, "8000.0"),
        ("queue_limit", 10.0, "10.0"),
        ("quota", True, "True"),
        ("max_render_mib", 512.5, "512.5"),
        ("max_render_seconds", "60", "'60'"),
        ("max_audio_seconds", float("inf"), "inf"),
        ("keep_days", float("nan"), "nan"),
        ("allow_private_urls", "no", "'no'"),
        ("allow_private_urls", 0, "0"),
        ("allow_private_urls", None, "None"),
        ("like_hosted", "false", "'false'"),
        ("format", ["square"], "['square']"),
        ("revision", None, "None"),
        ("data_dir", 7, "7"),
        ("allow_files", 7, "7"),
        ("allowed_hosts", [b"engine.example"], "b'engine.example'"),
        ("allowed_hosts", "engine.example:8000", "'engine.example:8000'"),
        ("allowed_hosts", "https://engine.example", "'https://engine.example'"),
        ("allowed_hosts", "engine.example/", "'engine.example/'"),
        ("allowed_hosts", "*", "'*'"),
        ("allowed_hosts", "", "''"),
        ("allowed_hosts", "bücher.example", "'bücher.example'"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused_with_its_name_and_value(make, name, value, said):
    with pytest.raises(A2VError) as caught:
        make(**{name: value})
    assert isinstance(caught.value, ValueError)
    assert name in str(caught.value)
    assert said in str(caught.value)


def test_host_names_are_accepted_in_each_spelling():
    names = ["Engine.Example", "[FD00::1]", "fd00::2", "10.0.0.1", "my_host"]
    assert Settings(allowed_hosts=names).allowed_hosts == (
        "engine.example",
        "fd00::1",
        "fd00::2",
        "10.0.0.1",
        "my_host",
    )
