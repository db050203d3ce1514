"""Who asks the store: a key pair of the settings, read at each request, or a role's keys, had anew before they end."""

import re

import certifi
import urllib3
from minio.credentials import Credentials, IamAwsProvider
from minio.credentials.providers import Provider

from pipeline.errors import SettingsError, StoreUnavailable
from pipeline.settings import S3

ROLE_S = 5.0
"""Longest wait for whoever gives out a role's keys."""
KEYS = "LINEWATCH_S3__ACCESS_KEY and LINEWATCH_S3__SECRET_KEY"


def credentials(settings: S3) -> Provider:
    """For the client, which asks it before each request.

    Raises:
        SettingsError: there are none.
    """
    if settings.credentials == "role":
        return _Role(settings)
    if settings.access_key is None or settings.secret_key is None:
        raise SettingsError(
            f"no S3 credentials: set {KEYS}, or s3.credentials to role, or start the embedded servers with "
            "'linewatch local up'"
        )
    return _Keys(settings)


def hint(settings: S3) -> str:
    """Where to look when the store does not know who asks."""
    if settings.credentials == "role":
        return "are the role's keys for this store (s3.role_endpoint)?"
    token = ", and LINEWATCH_S3__SESSION_TOKEN still good" if settings.session_token else ""
    return f"are {KEYS} right{token}?"


class _Keys(Provider):
    def __init__(self, settings: S3) -> None:
        self._settings = settings

    def retrieve(self) -> Credentials:
        access, secret, token = self._settings.access_key, self._settings.secret_key, self._settings.session_token
        assert access
        assert secret
        try:
            return Credentials(
                access.get_secret_value(), secret.get_secret_value(), token.get_secret_value() if token else None
            )
        except SettingsError as error:  # a file that was there when the settings were read
            raise StoreUnavailable(str(error)) from None


class _Role(Provider):
    """Of an EC2 machine, an ECS task, or a Kubernetes pod's web identity: minio finds out which by AWS's variables."""

    def __init__(self, settings: S3) -> None:
        http = urllib3.PoolManager(
            timeout=ROLE_S,
            retries=urllib3.Retry(total=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
            cert_reqs="CERT_REQUIRED",
            ca_certs=settings.ca_file or certifi.where(),
        )
        endpoint = settings.role_endpoint.rstrip("/") if settings.role_endpoint else None
        self._provider = IamAwsProvider(custom_endpoint=endpoint, http_client=http, region=settings.region)

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as error:
            # What the SDK raises names the whole URL, and in its query a web identity's token.
            reason = re.sub(r"\?\S*", "", str(getattr(error, "reason", None) or error)).splitlines()[0][:160]
            raise StoreUnavailable(
                f"no S3 keys for the role ({reason}): does this machine have a role, and is s3.role_endpoint right?"
            ) from None
