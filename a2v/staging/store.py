"""Requests to S3, Google Cloud Storage and Azure, and the translation of their errors.

Errors of the stores' library may contain signed URLs, so their text is never shown. Instead, known patterns in it select one of
our messages.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar

import obstore
from attrs import frozen
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from a2v.errors import ConfigurationError, StagingError
from a2v.staging.recording import read_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import ClientConfig, RetryConfig

    from a2v.staging.recording import Recording
    from a2v.staging.threads import CancelToken

T = TypeVar("T")

# Size of the parts in which larger files are uploaded, two at a time. S3 accepts 10,000 parts, so 80 GB.
_PART = 8 << 20


@frozen
class _Kind:
    """A kind of store.

    Attributes:
        form: The form of its URLs, for messages.
        credentials: The source of its credentials, for messages.
        addresses: The environment variables that select the server.
    """

    form: str
    credentials: str
    addresses: tuple[str, ...]


_KINDS = {
    "s3": _Kind(
        "s3://bucket/prefix (S3, MinIO, OSS and others)",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    ),
    "gs": _Kind(
        "gs://bucket/prefix (Google Cloud Storage)",
        "GOOGLE_APPLICATION_CREDENTIALS, the file of a service account's key",
        ("GOOGLE_BASE_URL",),
    ),
    "az": _Kind(
        "az://container/prefix (Azure)",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    ),
}

_DENIED = "access is denied: the credentials need the right to read, write and, to remove, delete objects there"
_UNKNOWN_CREDENTIALS = "the store does not accept the credentials; they come from {credentials}"
# Patterns in the text of an error, and messages for them; the first match counts.
_REASONS = (
    (r"169\.254\.\d|computeMetadata|Missing(AccessKeyId|SecretAccessKey|Account)\b", "no credentials: set {credentials}"),
    (r"OpenCredentials|DecodeCredentials|InvalidAccessKey\b|MissingKey\b", "the credentials cannot be read: set {credentials}"),
    (r"SASforSAS", "a SAS token cannot sign URLs: set {credentials}"),
    (r"RequestTimeTooSkewed|Request date header too old", "the clock of this machine is wrong: set it by a time server"),
    (r"NoSuchBucket|ContainerNotFound", "there is no such bucket"),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed|(Invalid|Expired)Token|401 Unauthorized", _UNKNOWN_CREDENTIALS),
    (r"AccessDenied|403 Forbidden", _DENIED),
    (r"AuthorizationHeaderMalformed|PermanentRedirect|without LOCATION|BareRedirect", "the bucket is in another region: set AWS_REGION"),
    (r"404 Not Found", "there is no such bucket"),
    (r"kind: (Connect|Timeout|Request)", "the store cannot be reached"),
)  # fmt: skip


class ObjectStore:
    """A prefix in a bucket.

    Args:
        to: Its URL, such as ``s3://bucket/prefix``.

    Raises:
        ConfigurationError: The URL is invalid.
    """

    def __init__(self, to: str) -> None:
        scheme, mark, rest = to.partition("://")
        if not mark or scheme not in _KINDS:
            forms = ", ".join(kind.form for kind in _KINDS.values())
            raise ConfigurationError(f"the staging target must be one of {forms}")
        self._kind, self._scheme = _KINDS[scheme], scheme
        self._bucket, _, prefix = rest.partition("/")
        self._prefix = prefix.strip("/")
        # The messages show neither, because it may contain a secret by mistake.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}", self._bucket):
            raise ConfigurationError(f"the staging target must look like {self._kind.form}: there is no bucket in it")
        if re.search(r"[?#\\\x00-\x1f\x7f]|//|(^|/)\.\.?(/|$)", self._prefix):
            raise ConfigurationError(
                "the prefix of the staging target must be plain names separated by /, without ? and #"
            )
        _check_addresses(self._kind.addresses)

    def __str__(self) -> str:
        return f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/")

    def object_key(self, name: str) -> object:
        """Return a key that identifies an object across all stores."""
        return (str(self), name, *(os.environ.get(variable) for variable in self._kind.addresses))

    def put(self, file: BinaryIO, recording: Recording, cancel: CancelToken) -> bool:
        """Upload a recording unless the store has it; return whether it was uploaded."""
        found = self._find(recording)
        if found == "there":
            return False
        self._request(f"{recording.path} cannot be staged to {self}", lambda: self._upload(file, recording, cancel))
        if found == "hidden" and self._find(recording) != "there":
            raise StagingError(f"{recording.path} was staged to {self}, but cannot be read from there: {_DENIED}")
        return True

    def sign(self, name: str, expires_in: timedelta) -> str:
        """Return a URL with which anyone can fetch an object for some time."""
        return self._request(
            f"no URL can be signed for {self}", lambda: obstore.sign(self._store, "GET", name, expires_in)
        )

    def remove(self, name: str) -> None:
        """Remove an object."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, name)

        self._request(f"{self}/{name} cannot be removed", delete)

    def _find(self, recording: Recording) -> Literal["there", "missing", "hidden"]:
        def head() -> Literal["there", "missing", "hidden"]:
            try:
                found = obstore.head(self._store, recording.name)
            except FileNotFoundError:
                return "missing"
            except BaseError as error:
                # Without permission to list, a store does not distinguish missing from unreadable objects, and the response to
                # HEAD has no body with a reason. The upload will show.
                if re.search(r"status code: 4\d\d\b", str(error)):
                    return "hidden"
                raise
            return "there" if found["size"] == recording.size else "missing"

        return self._request(f"{recording.path} cannot be staged to {self}", head)

    def _upload(self, file: BinaryIO, recording: Recording, cancel: CancelToken) -> None:

        digest = hashlib.sha256()
        attributes = {"Content-Type": recording.kind}
        # On an error, the writer aborts the upload.
        with obstore.open_writer(
            self._store, recording.name, attributes=attributes, buffer_size=_PART, max_concurrency=2
        ) as upload:
            for chunk in read_chunks(file, recording.path, cancel):
                digest.update(chunk)
                upload.write(chunk)
            if digest.hexdigest() != recording.sha256:
                raise StagingError(f"{recording.path} was changed while it was staged")

    @cached_property
    def _store(self) -> S3Store | GCSStore | AzureStore:

        # HTTP is used only for endpoints with that scheme. The time-out suits a part on a slow connection.
        client: ClientConfig = {"allow_http": True, "timeout": timedelta(minutes=5)}
        retry: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(minutes=5)}
        prefix = self._prefix or None
        if self._scheme == "gs":
            return GCSStore(self._bucket, prefix=prefix, client_options=client, retry_config=retry)
        if self._scheme == "az":
            return AzureStore(self._bucket, prefix=prefix, client_options=client, retry_config=retry)
        # Not all S3-compatible stores support bulk deletion.
        return S3Store(self._bucket, prefix=prefix, client_options=client, retry_config=retry, disable_bulk_delete=True)

    def _request(self, failure: str, work: Callable[[], T]) -> T:
        """Run a request, and translate its errors.

        Raises:
            StagingError: The request failed. The message contains no secret.
        """
        try:
            return work()
        except (BaseError, OSError, ValueError) as error:
            reason = self._reason(error)
        raise StagingError(f"{failure}: {reason}")

    def _reason(self, error: Exception) -> str:
        text = str(error)
        for pattern, reason in _REASONS:
            if re.search(pattern, text):
                return reason.format(credentials=self._kind.credentials)
        code = re.search(r"<Code>(\w{1,64})</Code>", text) or re.search(r"status code: (\d{3})\b", text)
        return f"the store rejects the request ({code[1]})" if code else "the store's library fails"


def _check_addresses(variables: tuple[str, ...]) -> None:
    for variable in variables:
        value = os.environ.get(variable)
        # The message does not show the value, which may contain a password.
        if value and not variable.endswith("NAME") and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", value):
            raise ConfigurationError(f"the environment variable {variable} must be a URL such as https://host:9000")
