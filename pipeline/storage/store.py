"""The object store seam and its S3 implementation.

The fake that ships for tests is :class:`pipeline.fakes.MemoryStore`.
"""

import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError

from pipeline.errors import ObjectConflict, ObjectMissing, ObjectTooLarge, SettingsError, StoreUnavailable
from pipeline.settings import S3
from pipeline.storage.credentials import credentials, hint

WRONG_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidTokenId")
UNTRUSTED = re.compile(r"certificate verify failed: (.*?) \(_ssl")
CODE = re.compile(rb"<Code>(\w{1,80})</Code>")


class ObjectStore(Protocol):
    """Objects under keys, with conditional writes. Every method may raise :class:`StoreUnavailable`."""

    bucket: str

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """The object. Raises ObjectMissing; ObjectTooLarge where it is larger than ``max_bytes``."""
        ...

    def get_with_etag(self, key: str) -> tuple[bytes, str]: ...

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None: ...

    def put_if(self, key: str, data: bytes, etag: str | None) -> None:
        """Write only if the object still has ``etag``, or, with None, only if there is none. Raises ObjectConflict."""
        ...

    def exists(self, key: str) -> bool: ...

    def remove(self, key: str) -> None:
        """Also where there is none."""
        ...

    def keys(self, prefix: str) -> Iterator[str]: ...

    def written(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Keys, and when each was last written, by the store's clock in whole seconds."""
        ...


class S3Store:
    """Any S3-compatible store: MinIO, SeaweedFS, AWS."""

    def __init__(self, settings: S3) -> None:
        provider = credentials(settings)
        self.bucket = settings.bucket
        self.endpoint = settings.endpoint
        self._hint = hint(settings)
        scheme, _, host = settings.endpoint.partition("://")
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(3.0, settings.timeout_s), read=settings.timeout_s),
            retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[502, 504]),
            maxsize=8,
            cert_reqs="CERT_REQUIRED",
            ca_certs=_authorities(settings),
        )
        self._client = Minio(
            host.rstrip("/"),
            credentials=provider,
            region=settings.region,
            secure=scheme == "https",
            http_client=self._http,
        )

    def require_bucket(self) -> None:
        """Raises StoreUnavailable where there is no such bucket."""
        if not self._has_bucket():
            raise StoreUnavailable(
                f"S3 at {self.endpoint} has no bucket {self.bucket!r}: correct s3.bucket, or make it with "
                "'linewatch setup'"
            )

    def ensure_bucket(self) -> bool:
        """Create the bucket where it is missing; whether it was."""
        if self._has_bucket():
            return False
        with self._answers("make the bucket", self.bucket):
            try:
                self._client.make_bucket(self.bucket)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise
                return False
        return True

    def _has_bucket(self) -> bool:
        with self._answers("look for the bucket", self.bucket):
            return bool(self._client.bucket_exists(self.bucket))

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        return self._get(key, max_bytes)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        return self._get(key, None)

    def _get(self, key: str, max_bytes: int | None) -> tuple[bytes, str]:
        with self._answers("read", key):
            response = self._client.get_object(self.bucket, key)
            try:
                length = int(response.headers.get("content-length", 0))
                if max_bytes is not None and length > max_bytes:
                    raise ObjectTooLarge(f"object {key!r} has {length} bytes, more than the limit of {max_bytes}")
                return response.read(), response.headers.get("etag", "").strip('"')
            finally:
                response.close()
                response.release_conn()

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        import io

        with self._answers("write", key):
            self._client.put_object(self.bucket, key, io.BytesIO(data), len(data), content_type)

    def put_if(self, key: str, data: bytes, etag: str | None) -> None:
        # minio's put_object would send If-Match as user metadata and overwrite silently; a presigned PUT takes it.
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        with self._answers("write", key):
            url = self._client.presigned_put_object(self.bucket, key, expires=timedelta(minutes=5))
            response = self._http.request("PUT", url, body=data, headers=condition, retries=False)
        found = CODE.search(response.data)
        code = found[1].decode() if found else f"status {response.status}"
        # MinIO and AWS answer If-Match on an object that is gone with 404.
        if response.status in (409, 412) or code == "NoSuchKey":
            raise ObjectConflict(key)
        if response.status >= 300:
            raise StoreUnavailable(f"S3 at {self.endpoint} refused to write {key!r} under a condition: {code}")

    def exists(self, key: str) -> bool:
        try:
            with self._answers("read", key):
                self._client.stat_object(self.bucket, key)
        except ObjectMissing:
            return False
        return True

    def remove(self, key: str) -> None:
        with self._answers("remove", key):
            self._client.remove_object(self.bucket, key)

    def keys(self, prefix: str) -> Iterator[str]:
        with self._answers("list", prefix):
            for item in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                if item.object_name:
                    yield item.object_name

    def written(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        with self._answers("list", prefix):
            for item in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                if item.object_name and item.last_modified:
                    yield item.object_name, item.last_modified

    def _answers(self, act: str, key: str) -> "_Translate":
        return _Translate(self.endpoint, act, key, self._hint)


def _authorities(settings: S3) -> str:
    """A PEM file. Raises SettingsError where it can't be read."""
    if settings.ca_file is None:
        return certifi.where()
    try:
        ssl.create_default_context(cafile=settings.ca_file)
    except ssl.SSLError:
        raise SettingsError(f"s3.ca_file {settings.ca_file} is not a PEM file of certificates") from None
    except OSError as error:
        raise SettingsError(f"s3.ca_file {settings.ca_file} can't be read: {error.strerror}") from None
    return settings.ca_file


class _Translate:
    """Turns the SDK's errors into ours: missing, unavailable, or refused with the server's own reason."""

    def __init__(self, endpoint: str, act: str, key: str, hint: str) -> None:
        self._endpoint, self._act, self._key, self._hint = endpoint, act, key, hint

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, S3Error):
            if error.code in ("NoSuchKey", "NoSuchObject"):
                raise ObjectMissing(self._key) from None
            # Whatever else the server says is no fault of the image: a person mends it, and the worker waits.
            if error.code == "NoSuchBucket":
                reason = f"has no bucket {error.bucket_name!r}: 'linewatch setup' makes it"
            else:
                reason = f"refused to {self._act} {self._key!r}: {error.code}: {error.message}"
                if error.code in WRONG_KEY or self._act.startswith("look"):
                    reason += f" ({self._hint})"
            raise StoreUnavailable(f"S3 at {self._endpoint} {reason}") from None
        if isinstance(error, ServerError | InvalidResponseError | urllib3.exceptions.HTTPError | OSError):
            # Of the tries it has made, urllib3 keeps the last one's reason.
            last = getattr(error, "reason", None) or error
            if found := UNTRUSTED.search(str(last)):
                raise StoreUnavailable(
                    f"S3 at {self._endpoint} has a certificate that is not to be trusted ({found[1].strip('.')}): is "
                    "s3.ca_file the authority that signed it, and s3.endpoint a name that it is for?"
                ) from None
            reason = type(last).__name__
            raise StoreUnavailable(f"S3 at {self._endpoint} does not answer ({reason}): is it running?") from None
