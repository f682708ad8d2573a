"""A signed URL is compared without its signature, and only if the signature is complete."""

from __future__ import annotations

import random

import pytest

from a2v._core.url_signatures import unsigned

AUDIO = "https://storage.example/hello.wav"
SAS = "sv=2024-11-04&sr=b&sig=Ab%2F%3D"
USER_KEY = "&skoid=1&sktid=2&skt=2026-01-01&ske=2026-01-02&sks=b&skv=2024-11-04"
AMZ = "&".join(
    f"X-Amz-{name}=1" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
)
COS = "q-sign-algorithm=sha1&q-ak=AK&q-sign-time=1;2&q-key-time=1;2&q-header-list=host&q-url-param-list=&q-signature=f"
OSS_V4 = "x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential=k&x-oss-date=1&x-oss-expires=2&x-oss-signature=f"
# The parameters that a vendor documents as required, and its optional ones.
SCHEMES = {
    "S3 v4": (AMZ, "X-Amz-Security-Token=t"),
    "S3 v2": ("AWSAccessKeyId=k&Expires=1700000000&Signature=a%2Bb", "x-amz-security-token=t"),
    "CloudFront, canned policy": ("Expires=1&Signature=s&Key-Pair-Id=K1", "Hash-Algorithm=SHA256"),
    "CloudFront, custom policy": ("Policy=eyJ&Signature=s&Key-Pair-Id=K1", ""),
    "GCS v4": (AMZ.replace("X-Amz", "X-Goog"), ""),
    "GCS v2": ("GoogleAccessId=a%40b&Expires=1&Signature=s", ""),
    "Azure account SAS": ("sv=2024-11-04&ss=b&srt=o&sp=r&se=2026-01-01&sig=s", "st=1&spr=https&sip=1.2.3.4&ses=x"),
    "Azure service SAS": (SAS + "&sp=r&se=2026-01-01", "st=1&spr=https&sip=1.2.3.4-1.2.3.9&sdd=2&ses=x"),
    "Azure stored policy": (SAS + "&si=readers", "se=2026-01-01"),
    "Azure user delegation": (SAS + "&sp=r&se=2026-01-01" + USER_KEY, "st=1&saoid=3&scid=4"),
    "OSS v4": (OSS_V4, "x-oss-security-token=t&x-oss-additional-headers=host"),
    "OSS v1": ("OSSAccessKeyId=k&Expires=1&Signature=s", "security-token=t"),
    "COS": (COS, "x-cos-security-token=t"),
    "OBS": ("AccessKeyId=k&Expires=1&Signature=s", "x-obs-security-token=t"),
    "TOS": (AMZ.replace("X-Amz", "X-Tos"), "X-Tos-Security-Token=t"),
    "Qiniu": ("e=1767000000&token=AK_1-x:Zm9v_-bA%3D", ""),
    "BOS": ("authorization=bce-auth-v1%2FAK%2F2026-01-01T00%3A00%3A00Z%2F3600%2Fhost%2Ff0", "x-bce-security-token=t"),
    "B2": ("Authorization=3_20260101000000_53982a_d940_000_20260102000000_0006_dnld", ""),
}
# Azure's own terms and a user's key are both optional to one of its schemes, so leaving one out may leave a shorter scheme.
SHORTER = {"Azure user delegation", "Azure stored policy"}


@pytest.mark.parametrize(("required", "optional"), SCHEMES.values(), ids=SCHEMES)
def test_a_complete_signature_does_not_count(required, optional) -> None:
    for query in filter(None, (required, f"{required}&{optional}".rstrip("&"))):
        assert unsigned(f"{AUDIO}?{query}") == AUDIO
        assert unsigned(f"{AUDIO}?versionId=7&{query}&sz=1#t") == f"{AUDIO}?versionId=7&sz=1#t"
        pairs = query.split("&")
        random.Random(1).shuffle(pairs)
        assert unsigned(f"{AUDIO}?{'&'.join(pairs)}") == AUDIO


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in SHORTER])
def test_an_incomplete_signature_counts(scheme) -> None:
    pairs = SCHEMES[scheme][0].split("&")
    for missing in range(len(pairs)):
        query = "&".join(pairs[:missing] + pairs[missing + 1 :])
        assert unsigned(f"{AUDIO}?{query}".rstrip("?")) == f"{AUDIO}?{query}".rstrip("?")
        twice = "&".join([*pairs, pairs[missing]])
        assert unsigned(f"{AUDIO}?{twice}") == f"{AUDIO}?{twice}"


@pytest.mark.parametrize(
    "query",
    [
        "text=hello&sv=english",
        "sv=english&st=1&se=2&sr=b&sp=fast&sig=short",  # not the version of a service
        "e=12&token=abc",  # an episode, and a fixed token
        "e=1767000000&token=abc",
        "authorization=abc",
        "authorization=take_2",
        *(
            f"{name}=1"
            for name in ("sig", "policy", "expires", "signature", "token", "e", "X-Amz-Signature", "q-signature")
        ),
        "Expires=1&Signature=s",
        "a=1&b=%31&c",
        "b=1&a=2",
        "a+b=%2B&a%20b=+",
        "AWSAccessKeyId=&Expires=1&Signature=s",
    ],
)
def test_everything_else_is_part_of_the_url(query) -> None:
    assert unsigned(f"{AUDIO}?{query}") == f"{AUDIO}?{query}"
