"""What --help says of every command: panels, placeholders, defaults, required options."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re

import pytest

from slg_wds import cli
from slg_wds.config import arguments
from slg_wds.config.command_line import PANELS, _options

COMMANDS = [name for name, command in cli.COMMANDS.items() if command.config]
PANELS_OF_GENERATE = [
    "positional arguments", "options", "Output options", "Teacher options", "Crop options", "View options",
    "Label options", "Image options", "Machine options", "Ray options", "Object store options",
    "FKD compatibility options",
]  # fmt: skip


def help_of(name: str, columns: int, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(stdout), pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    stdout.flush()
    return stdout.buffer.getvalue().decode()


def words_of(text: str) -> str:
    """The text without the panels' frames and line breaks."""
    return " ".join(re.sub(r"[│╭╰─╮╯]", " ", text).split())


def test_generate_has_its_panels_in_the_order_of_need(monkeypatch):
    titles = re.findall(r"^╭─ (.*?) ─*╮$", help_of("generate", 100, monkeypatch), re.MULTILINE)
    assert titles == PANELS_OF_GENERATE


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal(name, columns, monkeypatch):
    for line in help_of(name, columns, monkeypatch).splitlines():
        assert len(line) <= columns or line.startswith("usage: "), line


@pytest.mark.parametrize("name", COMMANDS)
def test_placeholders_say_what_to_put_there(name, monkeypatch):
    text = help_of(name, 100, monkeypatch)
    assert not re.search(r"\b(STR|INT|FLOAT)\b|None\b", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_default_is_given_once_and_flags_have_none(name, monkeypatch):
    text = words_of(help_of(name, 100, monkeypatch))
    for option in re.split(r" (?=-{1,2}[a-z][a-z-]* )", text)[1:]:
        assert option.count("(default: ") + option.count("(required") <= 1, option
    assert "(default: )" not in text and "(default: False)" not in text and "(default: True)" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_required_options_are_marked(name, monkeypatch):
    config = cli._resolve(cli.COMMANDS[name].config)
    text = words_of(help_of(name, 100, monkeypatch))
    required = [
        field
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    assert (required or name == "demo") and text.count("(required") == len(required) + (name == "generate")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_one_panel_with_a_help_of_one_paragraph(name):
    config = cli._resolve(cli.COMMANDS[name].config)
    options = list(_options(config))
    assert sorted(option for _, option, _ in options) == sorted(f.name for f in dataclasses.fields(config))
    for panel, option, text in options:
        assert panel in PANELS and len(text.split()) > 2 and "\n" not in text, option


@pytest.mark.parametrize("name", COMMANDS)
def test_only_arguments_that_may_be_left_out_stand_in_brackets(name, monkeypatch):
    """As in `usage: slg-wds demo [-h] [FOLDER] [--num-crops N]`."""
    usage = help_of(name, 100, monkeypatch).splitlines()[0]
    for one in arguments._options_of(cli._resolve(cli.COMMANDS[name].config)):
        if not one.spellings:
            optional = one.field.default is not dataclasses.MISSING
            assert (f" [{one.metavar}]" in usage) == optional and one.metavar in usage
