"""What is public is documented, every option has a help text, and what the README names is there."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import io
import itertools
import re
import textwrap
from pathlib import Path

import pytest

import slg_wds
from slg_wds import cli, config
from slg_wds.replay import mixed_stage, stages
from slg_wds.training.flags.definitions import DESCRIPTION, make_parser
from support.paths import ROOT
from support.readme.blocks import README, blocks, commands

REFERENCE = README.partition("\n## Reference\n")[2].partition("\n## ")[0]
ORIGINALS = {
    "train_FKD.py",
    "FKD_train.py",
    "generate_soft_label.py",
    "train.py",
    "mine.py",
}  # of FKD, timm, the reader


def code_of(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def public_names() -> list[str]:
    """What may be imported: the package's names, and what the modules for other pipelines define."""
    nodes = [
        node for module in (stages, mixed_stage) for node in ast.parse(Path(module.__file__).read_text()).body
    ]
    defined = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = [name for name in slg_wds.__all__ if name != "__version__"]
    return [*names, *(name for name in defined if not name.startswith("_"))]


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_in_the_reference(name):
    assert any(re.search(rf"\b{name}\b", code) for code in code_of(REFERENCE))


def test_the_reference_names_nothing_that_is_not_there():
    for code in code_of(REFERENCE):
        for called in re.findall(r"(?<!\.)\b([A-Za-z_.]+)\(", code):
            if called != "DataLoader":
                assert re.sub(r"^replay\.(stages|mixed_stage)\.", "", called) in public_names(), called


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_are_documented(name):
    assert f"slg-wds {name}" in code_of(REFERENCE)
    assert re.search(rf"\bslg-wds {name}\b", README.replace(REFERENCE, "")), "and shown in use"


def test_commands_of_the_readme_exist():
    found = re.findall(r"`slg-wds ([a-z][\w-]*)", README)
    found += [
        name for line in commands() for name in re.findall(r"(?:slg-wds|-m slg_wds) ([a-z][\w-]*)", line)
    ]
    assert len(found) > 40
    for name in found:
        assert name in cli.COMMANDS, name


def documented_fields(kind: type) -> dict[str, str]:
    """The string that stands after each field of a configuration and of what it inherits."""
    found: dict[str, str] = {}
    files = Path(config.__file__).parent.glob("*.py")
    parsed = [node for file in files for node in ast.parse(file.read_text()).body]
    classes = {node.name: node for node in parsed if isinstance(node, ast.ClassDef)}
    for base in reversed(kind.__mro__):
        body = classes[base.__name__].body if base.__name__ in classes else []
        for field, after in itertools.pairwise(body):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant):
                found[ast.unparse(field.target)] = str(text.value)
    return found


def help_of(name: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    return said.getvalue()


@pytest.mark.parametrize("name", [name for name, command in cli.COMMANDS.items() if command.config])
def test_every_option_has_a_help_text_and_the_command_shows_it(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    kind = cli._resolve(cli.COMMANDS[name].config)
    texts = documented_fields(kind)
    shown = " ".join(re.sub(r"[│╭╰─╮╯]", " ", help_of(name)).split())
    for field in dataclasses.fields(kind):
        text = texts.get(field.name, "")
        assert (len(text.split()) > 2 and text[0].isalnum()) or text.startswith(("--", "`", "hard")), (
            field.name
        )
        beginning = " ".join(textwrap.dedent(text).split()[:3])
        assert beginning in shown, (field.name, beginning)


def test_every_flag_of_train_has_a_help_text_and_its_default():
    parser = make_parser("train")
    actions = [action for action in parser._actions if action.option_strings]
    assert len(actions) > 45
    for action in actions:
        shown = parser._get_formatter()._get_help_string(action)
        assert len((action.help or "").split()) > 1, action.option_strings
        assert shown.count("(default") <= 1, shown
        if type(action.default) in (int, float, str) and action.default not in ("", argparse.SUPPRESS):
            value = re.escape(
                f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            )
            assert re.search(rf"\(default: {value}\b", shown), (action.option_strings, shown)


@pytest.mark.parametrize("columns", [80, 100])
def test_the_help_of_train_fits_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert [
        line for line in make_parser("slg-wds train").format_help().splitlines() if len(line) > columns
    ] == []


def options_of(name: str) -> set[str]:
    """Every spelling that a command takes, with hyphens."""
    return {flag.replace("_", "-") for flag in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", help_of(name))}


def test_options_that_the_readme_uses_exist():
    for line in re.sub(r"\\\n\s*", " ", README).splitlines():
        for name, rest in re.findall(r"slg.wds (\w+)([^`#|]*)", line):
            if name in cli.COMMANDS:
                used = {flag.replace("_", "-") for flag in re.findall(r"(?<=\s)--?[A-Za-z][\w-]*", rest)}
                assert used <= options_of(name), (name, used - options_of(name))


def test_every_task_of_slurm_gets_cores():
    """By default Slurm gives a task one core, and the loader then has one thread."""
    shown = [*commands(), *DESCRIPTION.splitlines(), *re.findall(r"`([^`]+)`", README)]
    starting = [line for line in shown if re.match(r"\s*(srun|sbatch) -", line)]
    assert len(starting) >= 5
    assert [line for line in starting if "--cpus-per-task" not in line or "--gpu" not in line] == []


def anchors(text: str) -> list[str]:
    """Where links into a Markdown file lead: its headings as repository hosts write them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)|^\[[\w-]+\]: (\S+)$", README, re.MULTILINE)
    assert len(links) > 20
    for link in map("".join, links):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            path = ROOT / (name or "README.md")
            assert path.exists(), link
            assert not anchor or anchors(path.read_text()).count(anchor) == 1, link


def section_of(text: str, anchor: str) -> str:
    """The text below the heading that an anchor leads to, up to the next heading of its kind."""
    (found,) = [
        one for one in re.split(r"^## ", text, flags=re.MULTILINE) if anchors(f"# {one}")[0] == anchor
    ]
    return found


def test_claims_are_of_the_measurements_that_they_link_to():
    rows = re.findall(r"^\|([^|]+)\|([^|]+)\| \[\w+\]\[([\w-]+)\] \|$", README, re.MULTILINE)
    links = dict(re.findall(r"^\[([\w-]+)\]: tools/EXPERIMENTS.md#(\S+)$", README, re.MULTILINE))
    assert len(rows) == len(links) > 10 and {mark for _, _, mark in rows} == links.keys()
    experiments = (ROOT / "tools/EXPERIMENTS.md").read_text()
    for claim, figures, mark in rows:
        numbers = re.findall(r"\d[\d,.]*\d|\d", claim + figures)
        assert numbers, claim
        for number in numbers:
            there = rf"(?<![\d.,]){re.escape(number)}(?![\d]|[.,]\d)"
            assert re.search(there, section_of(experiments, links[mark])), (claim, number)


def test_pictures_are_small_and_not_in_the_wheel():
    pictures = re.findall(r"^!\[([^\]]+)\]\((slg_wds/docs/[\w.]+)\)$", README, re.MULTILINE)
    assert {ROOT / name for _, name in pictures} == set((ROOT / "slg_wds/docs").iterdir())
    for picture, name in pictures:
        assert len(picture.split()) > 5, "for those who cannot see it"
        assert (ROOT / name).stat().st_size < 150_000
    assert 'exclude = ["slg_wds/docs"]' in (ROOT / "pyproject.toml").read_text()


def test_blocks_name_their_language_and_prose_has_short_lines():
    assert {block.language for block in blocks()} == {"bash", "python", "text"}
    for line in README.splitlines():
        assert len(line) <= 120 or line.startswith(("|", "[m-")), line


def test_files_that_the_readme_names_exist():
    paths = set(re.findall(r"(?<![\w/.])(?:tools|slg_wds|tests)/[\w./-]*\w", README))
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path
    names = {
        path.name
        for folder in ("slg_wds", "tools", "tests", ".github")
        for path in (ROOT / folder).rglob("*.*")
    }
    for name in set(re.findall(r"(?<![\w/.:])[\w-]+\.(?:py|md)\b", README)) - ORIGINALS:
        assert name in names, name
