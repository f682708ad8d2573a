"""Headers that a caller adds: which are accepted, and what the error shows of the others."""

from __future__ import annotations

import traceback
from types import MappingProxyType

import httpx
import pytest

import a2v
from a2v._core.settings import Secret, check_headers


def test_names_are_compared_in_lower_case() -> None:
    given = {"X-Key": "one two", "x-trace.id": "1\t2", "USER-AGENT": "mine"}
    assert check_headers("headers", Secret(given)).value == {
        "x-key": "one two",
        "x-trace.id": "1\t2",
        "user-agent": "mine",
    }


@pytest.mark.parametrize(
    "given", [MappingProxyType({"X-Key": "k"}), httpx.Headers({"X-Key": "k"})], ids=["proxy", "httpx"]
)
def test_any_mapping_is_accepted(given) -> None:
    assert check_headers("headers", Secret(given)).value == {"x-key": "k"}


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_headers(nothing) -> None:
    assert check_headers("headers", Secret(nothing)).value == {}


def test_a_later_change_of_the_mapping_has_no_effect() -> None:
    given = {"x-key": "k"}
    checked = check_headers("headers", Secret(given))
    given["x-key"] = "other\r\n"
    assert checked.value == {"x-key": "k"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("x-key: s3cret", "headers must be a mapping of names to values, got a value of type str"),
        ([("x-key", "s3cret")], "headers must be a mapping of names to values, got a value of type list"),
        ("", "headers must be a mapping of names to values, got a value of type str"),
        ([], "headers must be a mapping of names to values, got a value of type list"),
        (7, "headers must be a mapping of names to values, got a value of type int"),
        ({"x-key: s3cret": ""}, "headers has an invalid name for header 1"),
        ({"x-a": "1", "": "s3cret"}, "headers has an invalid name for header 2"),
        ({"x key": "s3cret"}, "headers has an invalid name for header 1"),
        ({"x-schlüssel": "s3cret"}, "headers has an invalid name for header 1"),
        ({b"x-key": "s3cret"}, "headers has an invalid name for header 1"),
        ({"x-key\r\nx": "s3cret"}, "headers has an invalid name for header 1"),
        ({"x-key\n": "s3cret"}, "headers has an invalid name for header 1"),
        ({"Authorization": "Bearer s3cret"}, "headers must not contain Authorization: the client sets this header"),
        ({"HOST": "s3cret"}, "headers must not contain HOST"),
        ({"content-length": "7"}, "headers must not contain content-length"),
        ({"Content-Type": "text/plain"}, "headers must not contain Content-Type"),
        ({"transfer-encoding": "chunked"}, "headers must not contain transfer-encoding"),
        ({"accept-encoding": "gzip"}, "headers must not contain accept-encoding"),
        ({"connection": "close"}, "headers must not contain connection"),
        ({"x-key": "s3cret\r\nx-other: 1"}, "values; that of x-key is not"),
        ({"x-key": "s3cret\n"}, "values; that of x-key is not"),
        ({"x-key": "s3cret\x00"}, "values; that of x-key is not"),
        ({"x-key": " s3cret"}, "values; that of x-key is not"),
        ({"x-key": "s3cret "}, "values; that of x-key is not"),
        ({"x-key": "s3crét"}, "values; that of x-key is not"),
        ({"x-key": ""}, "values; that of x-key is not"),
        ({"x-key": b"s3cret"}, "values; that of x-key is not"),
        ({"x-key": 7}, "values; that of x-key is not"),
        ({"x-key": None}, "values; that of x-key is not"),
    ],
)  # fmt: skip
def test_invalid_headers_are_refused_without_showing_a_value(given, problem) -> None:
    # Some of the values are keys of gateways, and error reports may show local variables.
    secret = Secret(given)
    del given
    with pytest.raises(a2v.ConfigurationError) as caught:
        check_headers("headers", secret)
    assert problem in str(caught.value)
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename]
    assert shown
    assert not any(text in part for part in [*shown, str(caught.value)] for text in ("s3cret", "s3cr\xe9t"))
