"""Errors describe responses of gateways and other APIs, quote their first words, and contain no secrets."""

from __future__ import annotations

import pytest

import a2v
from a2v._core import wire
from a2v._core.gateways import describe
from a2v._core.responses import Retry, classify
from a2v._core.wire import Response

JOB = a2v.Job("eva_a0008", "https://example.com/a.wav")


def reply(status: int, body: bytes, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def error_text(call, answer: Response) -> str:
    try:
        outcome = classify(call, answer)
    except a2v.A2VError as error:
        return str(error)
    assert isinstance(outcome, Retry)
    return str(outcome.error)


@pytest.mark.parametrize("call", [wire.character_list(), wire.video_generate(JOB)], ids=["GET", "POST"])
@pytest.mark.parametrize("status", [200, 400, 403, 404, 406, 413, 422, 429, 502])
@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b"<!DOCTYPE html><html><title>Just a moment...</title>", {"content_type": "text/html"}, ["web page", "Just a moment..."]),
        (b"<html>ModSecurity", {}, ["web page", "ModSecurity"]),
        (b"<style>b{}</style><script>var x = 1</script>back &amp; noon", {}, ["web page", "back & noon"]),
        (b"<", {}, ["web page answered, not the API"]),
        (b"error code: 1015", {}, ["other than the API", "error code: 1015"]),
        (b'{"detail": [{"loc": ["body", "audio_url"], "msg": "invalid url"}]}', {}, ["other than the API", "invalid url"]),
        (b'{"error": {"message": "model eva is not available in your region"}}', {}, ["not available in your region"]),
    ],
)  # fmt: skip
def test_gateway_responses_are_quoted(call, status, body, headers, words) -> None:
    said = error_text(call, reply(status, body, **headers))
    assert [word for word in words if word not in said] == []
    assert "var x" not in said


@pytest.mark.parametrize("status", [400, 403, 502])
def test_nothing_is_added_to_the_apis_own_errors(status) -> None:
    said = error_text(wire.character_list(), reply(status, b'{"code": 7, "message": "no", "data": null}'))
    assert said == f"no (HTTP {status}, code 7)"
    assert error_text(wire.character_list(), reply(status, b" ")) == f"the server refused (HTTP {status})"


@pytest.mark.parametrize(
    "text",
    [
        "see https://sso.example.com/login?next=x&secret=s3cr3t now",
        "see https://user:s3cr3t@sso.example.com/ now",
        "see https://sso.example.com/#s3cr3t",
        '{"access_token": "s3cr3t"}',
        "Authorization: Bearer s3cr3t",
        "api_key=s3cr3t&x=1",
        "X-Amz-Signature=s3cr3t",
        "Set-Cookie: s3cr3t",
    ],
)
def test_secrets_are_redacted(text) -> None:
    said = describe(reply(403, text.encode()))
    assert "s3cr3t" not in said
    assert "…" in said


def test_a_quote_is_one_short_line_of_visible_characters() -> None:
    said = describe(reply(502, b"\x1b[31mred\r\n\tand\x00 " + "\u202e".encode() + b"\xff" + b"x" * 100_000))
    assert said.startswith("something other than the API answered: \\x1b[31mred and\\x00 \\u202e\ufffdxx")
    assert said.isprintable()
    assert len(said) < 300
    assert said.endswith("…")
