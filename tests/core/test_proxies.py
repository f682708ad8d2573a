"""NO_PROXY as it is written in the wild, and proxies whose address is malformed."""

from __future__ import annotations

import pytest

import a2v
from a2v._core.proxies import bypasses_proxy, choose_proxy
from a2v._core.settings import Secret

SECRETS = ("us3r", "hunt", "er2s3cret", "s3cret")


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("https://api.corp.invalid", "api.corp.invalid"),
        ("https://api.corp.invalid", "API.Corp.Invalid"),
        ("https://API.CORP.invalid", "api.corp.invalid"),
        ("https://api.corp.invalid.", "api.corp.invalid"),
        ("https://api.corp.invalid", "api.corp.invalid."),
        ("https://api.corp.invalid", "corp.invalid"),
        ("https://api.corp.invalid", ".corp.invalid"),
        ("https://corp.invalid", ".corp.invalid"),
        ("https://api.corp.invalid", "*.corp.invalid"),
        ("https://api.corp.invalid", "https://api.corp.invalid"),
        ("https://api.corp.invalid", "https://api.corp.invalid/"),
        ("https://api.corp.invalid", "localhost, api.corp.invalid"),
        ("https://api.corp.invalid", "localhost api.corp.invalid"),
        ("https://api.corp.invalid", " , api.corp.invalid,"),
        ("https://api.corp.invalid", "*"),
        ("https://api.corp.invalid", " * "),
        ("https://api.corp.invalid:8443", "api.corp.invalid:8443"),
        ("https://api.corp.invalid", "api.corp.invalid:443"),
        ("http://api.corp.invalid", "api.corp.invalid:80"),
        ("https://api.corp.invalid:8443", ".corp.invalid:8443"),
        ("https://192.0.2.7", "192.0.2.7"),
        ("https://192.0.2.7", "192.0.2.0/24"),
        ("https://192.0.2.7", "192.0.2.9/24"),
        ("https://192.0.2.7:9000", "192.0.2.7:9000"),
        ("https://[2001:db8::7]", "2001:db8::7"),
        ("https://[2001:db8::7]", "[2001:db8::7]"),
        ("https://[2001:db8::7]", "2001:DB8:0::7"),
        ("https://[2001:db8::7]", "2001:db8::/32"),
        ("https://[2001:db8::7]", "[2001:db8::]/32"),
        ("https://[2001:db8::7]:8443", "[2001:db8::7]:8443"),
        ("https://[::ffff:192.0.2.7]", "192.0.2.0/24"),
    ],
)
def test_hosts_that_no_proxy_names(url, no_proxy) -> None:
    assert bypasses_proxy(url, no_proxy)
    assert choose_proxy(url, Secret({"https": "http://p:1", "http": "http://p:1", "no": no_proxy})) is None


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("https://api.corp.invalid", ""),
        ("https://api.corp.invalid", " , "),
        ("https://notcorp.invalid", "corp.invalid"),
        ("https://notcorp.invalid", "*corp.invalid.example"),
        ("https://corp.invalid.example", "corp.invalid"),
        ("https://api.corp.invalid:9000", "api.corp.invalid:8443"),
        ("https://api.corp.invalid", "api.corp.invalid:80"),
        ("https://api.corp.invalid", "api.corp.invalid:port"),
        ("https://api.corp.invalid", "."),
        ("https://api.corp.invalid", "*."),
        ("https://api.corp.invalid", "other.invalid,*"),
        ("https://192.0.2.7", "0.2.7"),
        ("https://192.0.2.7", "192.0.2.0/29.9"),
        ("https://192.0.2.7", "192.0.3.0/24"),
        ("https://192.0.2.7", "192.0.2.0/99"),
        ("https://[2001:db8::7]:9000", "[2001:db8::7]:8443"),
        ("https://[2001:db8::7]", "[2001:db8::8]"),
        ("https://[2001:db8::7]", "2001:db9::/32"),
    ],
)
def test_hosts_that_it_does_not_name(url, no_proxy) -> None:
    assert not bypasses_proxy(url, no_proxy)
    chosen = choose_proxy(url, Secret({"all": "p:1", "no": no_proxy}))
    assert chosen is not None
    assert chosen.value == "http://p:1"


@pytest.mark.parametrize(
    "proxy",
    [
        "http://us3r:hunt#er2s3cret@proxy.example:3128",
        "http://us3r:hunt/er2s3cret@proxy.example:3128",
        "http://us3r:hunt?er2s3cret@proxy.example:3128",
        "http://us3r:1234/er2s3cret@proxy.example:3128",
        "http://us3r:12#er2s3cret@proxy.example:3128",
        "us3r:hunt#er2s3cret@proxy.example:3128",
        "us3r:hunt/er2s3cret@proxy.example",
        "http://us3r:hunt er2s3cret@proxy.example:3128",
        "http://us3r:hunt\ter2s3cret@proxy.example:3128",
        "http://us3r:hunt\ner2s3cret@proxy.example:3128",
        "http://us3r:s3cret@proxy.example:port",
        "http://us3r:s3cret@proxy.example:99999",
        "http://us3r:s3cret@proxy.example:0",
        "http://us3r:s3cret@",
        "http://us3r:s3cret@:3128",
        "http://us3r:s3cret@[::1",
        "http://us3r:s3cret@proxy.example\\x:3128",
        "http://us3r:s3cret@proxy.example/path",
        "http:/us3r:s3cret@proxy.example",
        "ftp://us3r:s3cret@proxy.example",
        "us3r://s3cret@proxy.example",
        "http://us3r:hunt:er2s3cret",
        "://us3r:s3cret@proxy.example",
    ],
)
@pytest.mark.parametrize("scheme", ["https", "all"])
def test_no_part_of_a_malformed_proxy_is_shown(proxy, scheme) -> None:
    with pytest.raises(a2v.ConfigurationError) as caught:
        choose_proxy("https://api.example", Secret({scheme: proxy}))
    said = str(caught.value)
    assert f"{scheme.upper()}_PROXY" in said
    assert "percent-encoded" in said
    assert not [secret for secret in SECRETS if secret in said]
    assert "proxy.example" not in said
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "proxy",
    [
        "http://proxy.example",
        "HTTP://proxy.example:3128/",
        "https://proxy.example:3128",
        "socks5://127.0.0.1:1080",
        "socks5h://[::1]:1080",
        "http://user:p%23ss@proxy.example:3128",
        "http://user:p@ss@proxy.example:3128",
        "http://DOMAIN\\user:pass@proxy.example:3128",
        "http://user@proxy.example",
    ],
)
def test_proxies_that_are_used_as_they_are(proxy) -> None:
    chosen = choose_proxy("https://api.example", Secret({"https": proxy}))
    assert chosen is not None
    assert chosen.value == proxy
    assert "pass" not in repr(chosen)


def test_which_proxy_is_for_which_scheme() -> None:
    proxies = Secret({"http": "a:1", "all": "b:1"})
    assert [getattr(choose_proxy(f"{scheme}://x", proxies), "value", None) for scheme in ("http", "https")] == [
        "http://a:1",
        "http://b:1",
    ]
    assert choose_proxy("https://x", Secret({"http": "a:1"})) is None
    assert choose_proxy("https://x", Secret({"https": ""})) is None
