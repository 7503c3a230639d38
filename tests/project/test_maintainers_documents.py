"""What the documents for maintainers say is so: the files, layers and entries that they name."""

from __future__ import annotations

import ast
import re

import pytest

from support.paths import ROOT, TOOLS

DOCUMENTS = [
    ROOT / "slg_wds/ARCHITECTURE.md",
    ROOT / "tools/README.md",
    *sorted((ROOT / ".github").glob("*.md")),
]
TEST_OF_LAYERS = ROOT / "tests/project/test_package.py"
ARCHITECTURE = DOCUMENTS[0].read_text()
EXPERIMENTS = (ROOT / "tools/EXPERIMENTS.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_they_name_exist(path):
    text = path.read_text()
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md))`", text):
        homes = (ROOT, ROOT / "slg_wds", ROOT / "tests", ROOT / "tests/support", ROOT / "tools")
        assert any((home / name).exists() for home in homes), name
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_lines_are_not_long(path):
    assert max(map(len, path.read_text().splitlines())) <= 120


def test_the_architecture_is_short_and_its_layers_are_those_that_are_tested():
    (value,) = re.findall(r"^LAYERS = (\[.*?^\])", TEST_OF_LAYERS.read_text(), re.MULTILINE | re.DOTALL)
    assert len(ARCHITECTURE.splitlines()) <= 80
    drawn = [set(line.split()) for line in re.findall(r"^    (\w[\w ]*)$", ARCHITECTURE, re.MULTILINE)]
    assert drawn == [layer - {"__main__", "__init__"} for layer in ast.literal_eval(value)]


def test_every_folder_of_the_package_is_in_the_architecture():
    for folder in (ROOT / "slg_wds").iterdir():
        if (folder / "__init__.py").exists():
            assert f"`{folder.name}/" in ARCHITECTURE or folder.name in ("format", "labels"), folder.name


def test_the_first_page_of_the_experiments_lists_every_entry():
    page = " ".join(EXPERIMENTS.partition("\n## ")[0].split())
    entries = re.findall(r"^## \d{4}-(\d\d-\d\d), ([^(\n]*)", EXPERIMENTS, re.MULTILINE)
    assert len(entries) > 30
    for day, title in entries:
        assert f'"{title.strip()}" ({day})' in page, title


def test_every_program_is_in_the_list_of_tools():
    listed = re.findall(r"^\| `([^`]+)`", (TOOLS / "README.md").read_text(), re.MULTILINE)
    starts = [path for path in TOOLS.rglob("*.py") if "__main__" in path.read_text()]
    programs = {str(path.relative_to(TOOLS)) for path in starts if "gpu_parts" not in path.parts}
    assert sorted(listed) == sorted(programs | {"check", "demo", "test"})


def test_programs_are_where_the_first_page_says():
    page = EXPERIMENTS.partition("\n## ")[0]
    for names, folder in re.findall(r"((?:`[\w*.]+`(?:,| and)?\s+)+)in\s+`(tools/\w+/)`", page):
        for name in re.findall(r"`([\w*.]+)`", names):
            assert list((ROOT / folder).glob(name)), (folder, name)
