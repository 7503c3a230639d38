"""Credentials of an object store that are neither in options nor in the environment."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slg_wds.errors import UsageError
from slg_wds.masking import masked
from slg_wds.store.urls import scheme_of

# The environment variables in which obstore finds credentials by itself.
_FIRST = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure` and pip install 'slg-wds[aws]'",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth application-default login`",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN)",
}


def provider_of(scheme: str, config: Mapping[str, str]) -> Any:
    """Return obstore's provider of the credentials in the files of `aws configure`.

    Returns:
        None for other stores than S3; if the options or the environment give credentials; without such files or boto3.

    Raises:
        UsageError: the files cannot be read, or lack the profile that AWS_PROFILE names.
    """
    if scheme != "s3" or _given(config) or not _has_profile() or find_spec("boto3") is None:
        return None
    return _of_profile(tuple(os.environ.get(name) for name in ("AWS_PROFILE", "HOME", *_FILES)))


def no_credentials_hint(url: str) -> str | None:
    """Return the hint for a store that needs credentials when none are found; None for other stores."""
    scheme = scheme_of(url)
    public = "or the store option skip_signature=true for public data"
    if scheme == "s3" and _has_profile() and find_spec("boto3") is None:
        return f"pip install 'slg-wds[aws]', which reads the credentials of `aws configure`, {public}"
    return f"{_HINTS[scheme]}, {public}" if scheme in _HINTS else None


def _given(config: Mapping[str, str]) -> bool:
    """Return whether options or environment give credentials, or say that requests are not signed."""
    names = {name.removeprefix("aws_") for name in config}
    if names & {"access_key_id", "secret_access_key", "skip_signature"}:
        return True
    return any(os.environ.get(name) for name in (*_FIRST, "AWS_SKIP_SIGNATURE"))


def _has_profile() -> bool:
    places = (Path(os.environ.get(name) or usual).expanduser() for name, usual in _FILES.items())
    return bool(os.environ.get("AWS_PROFILE")) or any(place.is_file() for place in places)


@functools.cache
def _of_profile(environment: tuple[str | None, ...]) -> Any:
    """Read the files, once for each value of the variables that name them."""
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except BotoCoreError as error:
        raise UsageError(f"the credentials of `aws configure` cannot be read: {masked(str(error))}") from None
    except ValueError:  # the files hold none
        return None
