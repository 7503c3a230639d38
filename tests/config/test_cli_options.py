"""Options that may be given more than once."""

from __future__ import annotations

import pytest

from slg_wds.cli import _parse, main
from slg_wds.config import InspectConfig, VerifyConfig
from slg_wds.errors import UsageError

BOTH = {"endpoint": "http://host:9000", "region": "b=c"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["set", "--store-option", "endpoint=http://host:9000", "region=b=c"],
        ["--store-option", "endpoint=http://host:9000", "--json", "set", "--store_option", "region=b=c"],
        ["set", "--store-option=endpoint=http://host:9000", "--store-option=region=b=c", "--json"],
    ],
)
def test_store_options_add_up(arguments):
    config = _parse("inspect", InspectConfig, arguments)
    assert config.labels == "set" and config.store_options == BOTH


@pytest.mark.parametrize("kind", [InspectConfig, VerifyConfig])
def test_a_lone_argument_gives_the_options_that_the_parser_gives(kind):
    import tyro

    config = _parse("command", kind, ["a set"])
    assert config == tyro.cli(kind, args=["a set"])
    with pytest.raises(UsageError, match="no option --nothing"):
        _parse("command", kind, ["--nothing"])


@pytest.mark.parametrize(
    "given, meant",
    [
        ("inspec", "inspect"),
        ("genrate", "generate"),
        ("ensembel", "ensemble"),
        ("xyz", None),
        ("help", "--help"),
        ("--versoin", "--version"),
    ],
)
def test_an_unknown_command_suggests_the_near_one(capsys, given, meant):
    assert main([given, "x"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"slg-wds: no command '{given}'" + (f"; did you mean {meant}?" if meant else "")
