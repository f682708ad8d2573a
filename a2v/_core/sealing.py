"""Sealing: what clients of one account store where others can read it.

A shared budget holds ids of videos and signed URLs, and any program that can write it could make clients believe anything. So each
entry is encrypted and authenticated with keys derived from the token, which all clients of the account have:

* The keys are HMAC-SHA256 of the server's URL and a purpose, with the token as the key. One of them is the *fingerprint* that
  names the account's log. It does not reveal the token.
* The text is combined by XOR with a stream of bytes from SHAKE256 over a key and a random nonce of 128 bits, never used twice.
* A keyed BLAKE2b over nonce and ciphertext authenticates both.

This is a stream cipher and a MAC in the encrypt-then-MAC order, from the standard library's hash functions, because the core
depends on no cryptographic library. Entries are not tied to their positions: a program that can write to the store can delete
entries or repeat old ones, which could delay requests but neither forge nor reveal anything.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from typing import TYPE_CHECKING

from a2v._core.settings import HoldsSecret

if TYPE_CHECKING:
    from a2v._core.settings import Secret

_NONCE = 16  # bytes
_TAG = 16  # bytes
_COMPRESSED = 512  # bytes; shorter texts are not worth it
_PLAIN, _ZLIB = b"\0", b"\1"


class Sealer(HoldsSecret):
    """Encrypts and authenticates entries.

    Args:
        token: The account's token.
        base_url: The server.

    Attributes:
        fingerprint: Identifies the account on the server: 64 hexadecimal digits.
    """

    __slots__ = ("_mac_key", "_stream", "fingerprint")

    def __init__(self, token: Secret, base_url: str) -> None:
        def key(purpose: str) -> bytes:
            return hmac.digest(token.value.encode(), f"a2v budget\0{base_url}\0{purpose}".encode(), "sha256")

        self.fingerprint = key("fingerprint").hex()
        self._stream = hashlib.shake_256(key("encryption"))
        self._mac_key = key("authentication")

    def seal(self, text: bytes) -> bytes:
        """Return a sealed text."""
        content = _ZLIB + zlib.compress(text, 1) if len(text) > _COMPRESSED else _PLAIN + text
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._combine(nonce, content)
        return sealed + self._tag(sealed)

    def unseal(self, sealed: bytes) -> bytes | None:
        """Return the text; ``None`` if it was not sealed with this token, or is damaged."""
        content, tag = sealed[:-_TAG], sealed[-_TAG:]
        if len(content) <= _NONCE or not hmac.compare_digest(self._tag(content), tag):
            return None
        text = self._combine(content[:_NONCE], content[_NONCE:])
        return zlib.decompress(text[1:]) if text[:1] == _ZLIB else text[1:]

    def _combine(self, nonce: bytes, content: bytes) -> bytes:
        stream = self._stream.copy()
        stream.update(nonce)
        mask = int.from_bytes(stream.digest(len(content)), "little")
        return (int.from_bytes(content, "little") ^ mask).to_bytes(len(content), "little")

    def _tag(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, digest_size=_TAG, key=self._mac_key).digest()
