"""The engine's certificate: checked before the engine starts, and loaded again when its files change.

Python's own errors name neither the file nor the remedy, and there is none for an expired certificate. So ``load`` reads the files
itself, then lets a client that trusts only this certificate verify it, over a connection in memory. If that handshake fails, it would fail
for every client.

Certificates are renewed every few weeks or days. ``CertificateFiles`` looks for changed files once a minute. If the new files pass the
same checks, they apply to new connections; otherwise it keeps the old certificate and logs the reason.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define

from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from a2v.engine.settings import Settings

logger: logging.Logger = logging.getLogger("a2v.engine")

RELOAD_SECONDS = 60.0
"""The interval at which the files are checked for changes."""
_MAX_FILE_BYTES = 1024 * 1024
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY = re.compile(r"-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----")
_MAX_HANDSHAKE_ROUNDS = 8


@define(eq=False)
class CertificateFiles:
    """The certificate and key of an engine.

    Attributes:
        context: The TLS settings for new connections.
    """

    context: ssl.SSLContext
    _cert: Path
    _key: Path
    _seen: tuple[object, ...]

    async def reload_when_changed(self) -> None:
        """Load the files again whenever they change, until cancelled."""
        while True:
            await anyio.sleep(RELOAD_SECONDS)
            await anyio.to_thread.run_sync(self._reload)

    def _reload(self) -> None:
        seen = _file_states(self._cert, self._key)
        if seen == self._seen:
            return
        # Set before loading, so that an error is logged only once per change. One of the two files may be written a moment later.
        self._seen = seen
        try:
            self.context = _load_context(self._cert, self._key)
        except ConfigurationError as error:
            logger.error("the new certificate is not used: %s", error)  # noqa: TRY400  # the message says it all
        else:
            logger.info("the new certificate is in use")


def load(settings: Settings) -> CertificateFiles | None:
    """Load and check the certificate that the settings name; return ``None`` if they name none.

    Raises:
        ConfigurationError: A file cannot be used; the message says which one, why, and what to do.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    seen = _file_states(settings.tls_cert, settings.tls_key)
    return CertificateFiles(
        _load_context(settings.tls_cert, settings.tls_key), settings.tls_cert, settings.tls_key, seen
    )


def _file_states(*paths: Path) -> tuple[object, ...]:
    found: list[object] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _load_context(cert: Path, key: Path) -> ssl.SSLContext:
    chain = _read_pem("tls_cert", cert)
    if _CERTIFICATE not in chain:
        raise ConfigurationError(f"tls_cert: {cert} {_missing_certificate_hint(chain)}")
    private = _read_pem("tls_key", key, is_secret=True)
    found = _PRIVATE_KEY.search(private)
    if not found:
        raise ConfigurationError(f"tls_key: {key} contains no private key in PEM format (-----BEGIN PRIVATE KEY-----)")
    if "ENCRYPTED" in found[1] or "Proc-Type: 4,ENCRYPTED" in private:
        raise ConfigurationError(
            f"tls_key: {key} is encrypted, and the engine cannot ask for its passphrase: decrypt it with "
            f"`openssl pkey -in {key} -out decrypted.pem`, and keep the result readable by the engine's user alone"
        )
    del private
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"tls_key: {key} is not the key of the first certificate in {cert}: pass the key that the certificate "
                "was made for, and put the server's own certificate before its issuers'"
            ) from None
        raise ConfigurationError(f"tls_cert, tls_key: {cert} and {key} cannot be used: {_ssl_reason(error)}") from None
    except OSError as error:  # replaced since they were read
        raise ConfigurationError(f"tls_cert, tls_key: {cert} and {key} cannot be read: {error.strerror}") from None
    _verify(context, cert, chain)
    return context


def _read_pem(name: str, path: Path, *, is_secret: bool = False) -> str:
    try:
        # Opening a pipe would block.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_MAX_FILE_BYTES).decode("latin-1") if stat.S_ISREG(status.st_mode) else None
    except IsADirectoryError:
        raise ConfigurationError(f"{name}: {path} is a folder; pass the file in it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{name}: {path} cannot be read: {reason}") from None
    if text is None:
        raise ConfigurationError(f"{name}: {path} is not a file")
    if is_secret:
        _check_private(path, status)
    return text


def _check_private(path: Path, status: os.stat_result) -> None:
    """Refuse a key that others can read, by PostgreSQL's rule: a group may read it if root owns it."""
    if os.name != "posix":
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o037 if status.st_uid == 0 else 0o077):
        raise ConfigurationError(
            f"tls_key: other users can read or change {path} (mode {mode:o}): run chmod 600 {path}"
        )


def _missing_certificate_hint(text: str) -> str:
    if _PRIVATE_KEY.search(text):
        return "contains a private key and no certificate; pass it as tls_key (--tls-key)"
    if text.startswith("\x30\x82"):
        return "is in DER format; convert it to PEM with `openssl x509 -inform der -in FILE -out cert.pem`"
    return "contains no certificate in PEM format (-----BEGIN CERTIFICATE-----)"


def _verify(server: ssl.SSLContext, cert: Path, chain: str) -> None:
    """Let a client verify the certificate, in memory."""
    leaf = chain[chain.index(_CERTIFICATE) :].partition("-----END CERTIFICATE-----")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # Trust the certificate itself, whoever issued it.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cadata=leaf[0] + leaf[1])
        _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        problem = error.verify_message
        hint = {
            "certificate has expired": "renew it",
            "certificate is not yet valid": "check this machine's clock",
            "unsuitable certificate purpose": "it must be a certificate for a server",
        }.get(problem, "clients would reject it")
        raise ConfigurationError(f"tls_cert: {cert}: {problem}: {hint}") from None
    except ssl.SSLError as error:
        raise ConfigurationError(f"tls_cert: {cert} cannot be used: {_ssl_reason(error)}") from None


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_MAX_HANDSHAKE_ROUNDS):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
        if not ends:
            return


def _ssl_reason(error: ssl.SSLError) -> str:
    return (error.reason or "unknown error").replace("_", " ").lower()
