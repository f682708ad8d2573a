"""Removes the parameters with which object stores and CDNs sign a URL, and other parts of a URL that give access.

A URL has another signature each time it is signed, while the recording is the same, so the signature must not count in a
job's identity. But some of these parameters have everyday names (``sv``, ``e``, ``Expires``), and a service may use the same
names to distinguish its recordings. Parameters are therefore removed only if a scheme is *complete*: each parameter that the
vendor documents as required occurs exactly once, with a value as documented. Otherwise they count as part of the URL.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable

_ANY = ".*"
_SOME = ".+"


class _Scheme(NamedTuple):
    """A way of signing a URL.

    Attributes:
        required: The parameters that every signature has, each with a pattern for its value.
        optional: Parameters that belong to the signature if they are present.
    """

    required: Mapping[str, str]
    optional: frozenset[str] = frozenset()


def _scheme(required: str, *optional: str, **patterns: str) -> _Scheme:
    values = dict.fromkeys(required.split(), _SOME)
    return _Scheme(
        values | {name.replace("_", "-"): pattern for name, pattern in patterns.items()}, frozenset(optional)
    )


_V4 = "algorithm credential date expires signedheaders signature"


def _v4(vendor: str, *optional: str) -> _Scheme:
    required = " ".join(f"x-{vendor}-{name}" for name in _V4.split())
    return _scheme(required, *(f"x-{vendor}-{name}" for name in optional))


_SAS = ("st", "sip", "spr", "ses")
_SERVICE_SAS = (*_SAS, "sdd", "si", "saoid", "suoid", "scid", "skdutid", "sduoid")
# The version of the service. Without this pattern, any parameter called `sv` would do.
_SAS_VERSION = r"\d{4}-\d{2}-\d{2}"

# In lower case: some tools change the case of names.
_SCHEMES = (
    # Amazon S3 and stores with its interface: version 4 (and 4a, which adds the regions), version 2
    _v4("amz", "security-token", "content-sha256", "region-set", "s3session-token"),
    _scheme("awsaccesskeyid expires signature", "x-amz-security-token"),
    # Amazon CloudFront: canned policy, custom policy
    _scheme("expires signature key-pair-id", "hash-algorithm"),
    _scheme("policy signature key-pair-id", "hash-algorithm"),
    # Google Cloud Storage: version 4, version 2
    _v4("goog"),
    _scheme("googleaccessid expires signature"),
    # Azure Storage: account SAS; service SAS with its own terms, with a stored policy, with a user's key
    _scheme("ss srt sp se sig", *_SAS, sv=_SAS_VERSION),
    _scheme("sr sp se sig", *_SERVICE_SAS, sv=_SAS_VERSION),
    _scheme("sr si sig", *_SERVICE_SAS, "se", "sp", sv=_SAS_VERSION),
    _scheme("sr sp se sig skoid sktid skt ske sks skv", *_SERVICE_SAS, sv=_SAS_VERSION),
    # Alibaba Cloud OSS: version 4, version 1
    _scheme(
        "x-oss-signature-version x-oss-credential x-oss-date x-oss-expires x-oss-signature",
        "x-oss-additional-headers",
        "x-oss-security-token",
    ),
    _scheme("ossaccesskeyid expires signature", "security-token"),
    # Tencent Cloud COS: two of its lists may be empty
    _scheme(
        "q-sign-algorithm q-ak q-sign-time q-key-time q-signature",
        "x-cos-security-token",
        q_header_list=_ANY,
        q_url_param_list=_ANY,
    ),
    # Huawei Cloud OBS
    _scheme("accesskeyid expires signature", "x-obs-security-token"),
    # Volcengine TOS
    _v4("tos", "security-token", "content-sha256", "signedqueries"),
    # Qiniu Kodo: a deadline in seconds since 1970, and an access key with a signature
    _scheme("", e=r"\d{9,11}", token=r"[\w-]+:[\w=-]+(:[\w=-]+)?"),  # noqa: S106  # a pattern
    # Baidu BOS
    _scheme("", "x-bce-security-token", authorization=r"bce-auth-v\d+/.+"),
    # Backblaze B2: a version, a time and a signature
    _scheme("", authorization=r"\d+_\w{8,}_.+"),
)


def unsigned(url: str) -> str:
    """Return a URL without the parameters of the schemes that it is signed with. Everything else stays as written."""
    parts = urlsplit(url)
    if not parts.query:
        return urlunsplit(parts)
    pairs = [(_name(pair), pair) for pair in parts.query.split("&")]
    times = Counter(name for name, _ in pairs)
    values = {name: unquote(pair.partition("=")[2]) for name, pair in pairs if times[name] == 1}
    signature = {name for scheme in _SCHEMES if _is_complete(scheme, values) for name in _names(scheme)}
    query = "&".join(pair for name, pair in pairs if name not in signature or times[name] > 1)
    return urlunsplit(parts._replace(query=query))


def without_query(url: str) -> str:
    """Return a URL without the parts that may give access: user and password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def map_urls(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value that is nested like JSON, with its URLs changed."""
    if isinstance(value, str):
        return change(value) if "://" in value else value
    if isinstance(value, Mapping):
        return {key: map_urls(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [map_urls(part, change) for part in value]
    return value


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()


def _is_complete(scheme: _Scheme, values: Mapping[str, str]) -> bool:
    return all(
        name in values and re.fullmatch(value, values[name], re.DOTALL) for name, value in scheme.required.items()
    )


def _names(scheme: _Scheme) -> frozenset[str]:
    return scheme.optional.union(scheme.required)
