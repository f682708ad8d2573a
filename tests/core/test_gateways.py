"""Errors describe responses of gateways and other APIs, quote their first words, and contain no secrets."""

from __future__ import annotations

import pytest

import a2v
from a2v._core import wire
from a2v._core.gateways import describe, excerpt
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
    assert error_text(wire.character_list(), reply(status, b" ")) == f"the server rejected the request (HTTP {status})"


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
        "Cookie: id=s3cr3t; theme=s3cr3t",
        '{"password": "s3cr3t, with s3cr3t words", "a": 1}',
        r'{"password": "quoted \" s3cr3t"}',
        r'{"error": "{\"access_token\": \"s3cr3t\"}"}',
        r'{"error": "cannot fetch https:\/\/h.example\/a.wav?x=s3cr3t\u0026y=s3cr3t"}',
        r'{"error": "cannot fetch https:\/\/user:s3cr3t@h.example\/a.wav"}',
        "see https://user:pass@s3cr3t@sso.example.com/ now",
        "next=https%3A%2F%2Fsso.example.com%2Flogin%3Fx%3Ds3cr3t",
        "next=https%3A%2F%2Fuser%3As3cr3t%40sso.example.com%2Flogin",
        "form: user=eva&token%3Ds3cr3t",
        "{'token': 's3cr3t'}",
        "a_rather_long_name_of_an_environment_variable_that_holds_a_secret_access_key=s3cr3t",
        "<Error><SecretKey>s3cr3t</SecretKey></Error>",
        '<a:session_token xmlns:a="x" id="1">s3cr3t</a:session_token>',
        '<input type="hidden" name="csrf_token" value="s3cr3t">…',
        "<a href='https://h.example/?x=s3cr3t'>…</a>",
        "<p>https:&#x2F;&#x2F;h.example&#x2F;a?x=s3cr3t</p>",
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


@pytest.mark.parametrize("limit", [1, 20, 500])
def test_an_excerpt_has_no_more_characters_than_the_limit(limit) -> None:
    assert len(excerpt(reply(502, b"word " * 1000), limit)) <= limit
    assert excerpt(reply(502, b"x" * limit), limit) == "x" * limit


def test_ordinary_words_are_not_taken_for_secrets() -> None:
    said = (
        "the token has expired; see https://h.example/a?… by author: Eva, design=2, tokens used 7 (signature mismatch)"
    )
    assert excerpt(reply(403, said.encode()), 500) == said


@pytest.mark.parametrize(
    "unit",
    [
        "a-", "a.", "aA_", "<", "<a", "<script", "<!--", "<token ", "token", "token:", 'token:"', "token=a;b=", "cookie=a;", "\\",
        ":\\", "://", "://a@", "https://", "%3a%2f%2f", "%3A%2F%2Fa%40", "&lt;", "Bearer ", "{[",
    ],
)  # fmt: skip
def test_a_hostile_response_is_described_in_time_that_grows_with_its_length(unit) -> None:
    """A pattern that goes back over what it has read would block the event loop for many seconds here."""
    assert len(excerpt(reply(502, unit.encode() * 100_000), 500)) <= 500
