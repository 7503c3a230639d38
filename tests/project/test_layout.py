"""Where files lie: the tests mirror the package, and no folder or file is too large to be read at a glance."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.paths import ROOT, TESTS, TOOLS

PACKAGE = ROOT / "slg_wds"
BESIDE = {"project", "support", "trainers", "trust", "golden", "malformed"}  # folders that are of tests alone
# The tests of whole runs and of whole walks over a set, by what they look at.
SUBJECTS = {"generation": {"images", "labels", "runs"}, "replay": {"batches", "walks"}}


def folders(root: Path) -> list[Path]:
    return [root, *(path for path in root.rglob("*") if path.is_dir() and "__pycache__" not in path.parts)]


@pytest.mark.parametrize("root", [PACKAGE, TESTS, TOOLS], ids=lambda root: root.name)
def test_no_folder_has_many_files(root):
    sizes = {folder: sum(path.is_file() for path in folder.iterdir()) for folder in folders(root)}
    assert {str(folder): size for folder, size in sizes.items() if size > 16} == {}


def test_no_module_of_the_package_is_long():
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 460} == {}


def test_the_first_page_of_a_folder_says_what_goes_in_and_out_and_names_all_that_is_in_it():
    unnamed = []
    for page in PACKAGE.rglob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(page.read_text())) or ""
        assert re.search(r"\benters: .*\bleaves: ", text, re.IGNORECASE | re.DOTALL), page
        there = [path.stem for path in page.parent.glob("*.py")]
        there += [path.parent.name for path in page.parent.glob("*/__init__.py")]
        unnamed += [
            f"{page}: {name}" for name in there if not re.search(rf"\b{name}\b", text) and name != "__init__"
        ]
    assert unnamed == []


def test_no_two_classes_or_types_have_one_name():
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        assigned = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
        names += [one.id for one in assigned if isinstance(one, ast.Name) and re.match("[A-Z]+[a-z]", one.id)]
        for name in set(names) - {"Self"}:
            places.setdefault(name, []).append(str(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_tests_lie_where_the_code_lies():
    there = [folder.relative_to(TESTS) for folder in folders(TESTS)[1:]]
    mirrored = [folder for folder in there if folder.parts[0] not in BESIDE]
    subjects = {Path(folder, subject) for folder, names in SUBJECTS.items() for subject in names}
    assert subjects <= set(mirrored)
    assert [str(folder) for folder in set(mirrored) - subjects if not (PACKAGE / folder).is_dir()] == []


def test_no_test_imports_another_one():
    """What several need is in support/, where a spawned process finds it too."""
    for path in TESTS.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        assert not [
            name for name in names if name.split(".")[0].startswith(("test_", "conftest", "tests"))
        ], path
