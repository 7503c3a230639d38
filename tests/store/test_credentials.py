"""Credentials: those that `aws configure` wrote, and the errors where there are none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slg_wds import errors
from slg_wds.config import parse_store_options
from slg_wds.store import open_store
from slg_wds.store.faults import translated
from support.servers.s3 import S3Server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home as `aws configure` leaves it, and no credentials in the environment."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nregion = eu-central-1\n")
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = reader\naws_secret_access_key = reader-secret\n"
        "[owner]\naws_access_key_id = owner\naws_secret_access_key = owner-secret\n"
        "[stranger]\naws_access_key_id = stranger\naws_secret_access_key = stranger-secret\n"
    )
    return tmp_path


def test_the_profiles_of_aws_configure(s3_server: S3Server, s3_url: str, home: Path, monkeypatch) -> None:
    where = {"endpoint": s3_server.endpoint}
    monkeypatch.setenv("AWS_PROFILE", "owner")
    assert open_store(s3_url, where).create("a", b"1")
    monkeypatch.delenv("AWS_PROFILE")
    assert open_store(s3_url, where).read("a") == b"1"
    assert open_store(s3_url, {**where, "region": "us-east-1"}).read("a") == b"1"
    with pytest.raises(errors.PermissionDeniedError, match="refused by the store"):
        open_store(s3_url, where).create("b", b"1")
    monkeypatch.setenv("AWS_PROFILE", "stranger")
    with pytest.raises(errors.PermissionDeniedError, match="InvalidAccessKeyId"):
        open_store(s3_url, where).read("a")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(errors.UsageError, match=r"`aws configure` cannot be read: .*\(nobody\)"):
        open_store(s3_url, where)


def test_options_and_environment_go_before_profiles(s3_server, s3_url, home, monkeypatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert open_store(s3_url, s3_server.options()).create("a", b"1")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    assert open_store(s3_url).read("a") == b"1"


def test_a_file_of_another_place(s3_server, s3_url, home, tmp_path, monkeypatch) -> None:
    (home / ".aws" / "credentials").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("AWS_PROFILE", "owner")
    assert open_store(s3_url, {"endpoint": s3_server.endpoint}).create("a", b"1")


def refusal(url: str) -> str:
    """The error after a store asked a credential service without success."""
    from obstore.exceptions import GenericError

    with pytest.raises(errors.PermissionDeniedError) as raised, translated(url):
        raise GenericError("Generic store error: Error performing token request: no route")
    return str(raised.value)


def test_hints_name_the_store_s_own_variables(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    said = {scheme: refusal(f"{scheme}://bucket/a") for scheme in ("s3", "gs", "az", "https")}
    assert "AWS_ACCESS_KEY_ID" in said["s3"] and "slg-wds[aws]" in said["s3"]
    assert "GOOGLE_APPLICATION_CREDENTIALS" in said["gs"] and "AZURE_STORAGE_ACCOUNT_KEY" in said["az"]
    for scheme in ("gs", "az", "https"):
        assert "AWS_" not in said[scheme] and "aws" not in said[scheme]
    assert all("skip_signature=true" in said[scheme] for scheme in ("s3", "gs", "az"))


def test_a_store_without_an_account_names_the_variable(monkeypatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(
        errors.UsageError, match=r"Account must be specified.*; set AZURE_STORAGE_ACCOUNT_NAME"
    ):
        open_store("az://container/x").size("a")


def test_without_boto3_the_hint_names_the_extra(home, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "pip install 'slg-wds[aws]', which reads the credentials of `aws configure`" in refusal(
        "s3://bucket/a"
    )


def test_options_that_are_none_are_not_repeated() -> None:
    with pytest.raises(errors.UsageError, match="--store-option 2 of 2 is not key=value") as raised:
        parse_store_options(("a=b", "secret_access_key:xyzzy"))
    assert "xyzzy" not in str(raised.value)
