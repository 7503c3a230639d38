"""The package as a whole: layers, public names, errors that travel between processes."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import slg_wds
from slg_wds import errors

PACKAGE = Path(slg_wds.__file__).parent

# Imports point down this list only.
LAYERS = [
    {"cli", "__main__", "__init__", "interrupts"},
    {"training", "demo"},
    {
        "generation",
        "ensembling",
        "replay",
        "interop",
        "inspection",
        "verification",
        "report",
        "prototypes",
    },
    {"engines"},
    {"labelset", "images", "transforms", "labels", "teachers", "banks"},
    {"format", "store", "config", "files", "concurrency"},
    {"console", "errors"},
    {"masking", "arrays"},
]


def imports(path: Path) -> set[str]:
    """The parts of the package that a module imports at any place, but for type checking alone."""
    return imported_parts(path.read_text())


def imported_parts(source: str) -> set[str]:
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [text for text in [name_given_to_import(node)] if text]
        found |= {part for name in names if name.startswith("slg_wds.") and (part := name.split(".")[1])}
    return found


def name_given_to_import(node: ast.AST) -> str | None:
    """The module that a call of import_module or __import__ names, as far as it is literal; None for other nodes."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    if ast.unparse(node.func).rpartition(".")[2] not in ("import_module", "__import__"):
        return None
    name = node.args[0]
    if isinstance(name, ast.JoinedStr):
        name = name.values[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import slg_wds.store.base", {"store"}),
        ("def f():\n    from slg_wds.labels import topk", {"labels"}),
        ("importlib.import_module('slg_wds.labels')", {"labels"}),
        (
            "from importlib import import_module as import_module\nimport_module('slg_wds.replay.loader')",
            {"replay"},
        ),
        ("__import__('slg_wds.engines')", {"engines"}),
        ("importlib.import_module(f'slg_wds.labels.{name}')", {"labels"}),
        ("importlib.import_module(f'{__name__}.{name}')", set()),
        ("if TYPE_CHECKING:\n    from slg_wds.replay import loader", set()),
    ],
)
def test_every_way_to_import_is_seen(source, parts):
    assert imported_parts(source) == parts


def test_imports_point_down_the_layers():
    level = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    for path in PACKAGE.rglob("*.py"):
        part = part_of(path)
        for target in imports(path) - {part}:
            assert level[target] >= level[part], f"{path} of layer {level[part]} imports {target}"


def test_format_and_store_do_not_know_each_other_nor_torch():
    for part, strangers in {"format": {"store"}, "store": {"format"}}.items():
        for path in (PACKAGE / part).rglob("*.py"):
            assert not imports(path) & strangers, path
            assert "import torch" not in path.read_text(), path


def test_public_names():
    assert slg_wds.__all__ == sorted(slg_wds.__all__)
    for name in slg_wds.__all__:
        assert getattr(slg_wds, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        slg_wds.nothing_of_the_kind  # noqa: B018


def test_every_public_function_and_class_has_a_docstring():
    for name in set(slg_wds.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(slg_wds, name)), name


@pytest.mark.parametrize("use", ["import slg_wds", "from slg_wds.cli import main; main(['--help'])"])
def test_importing_the_package_costs_no_torch(use):
    code = f"import sys; {use}; assert not {{'torch', 'webdataset', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def every_error() -> list[type[errors.SlgWdsError]]:
    return [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.SlgWdsError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_and_stands_in_the_tree(kind):
    error = kind("what is wrong", url="s3://b/set", shard="train-000003.tar", key="n01/x", hint="do this")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and vars(again) == vars(error)
    assert str(again) == "what is wrong (key n01/x, shard train-000003.tar, url s3://b/set); do this"
    assert f"── {kind.__name__}" in errors.__doc__ or kind is errors.SlgWdsError


def test_places_are_filled_in_only_where_unknown():
    error = errors.RecordError("bad", key="a").located(url="u", key="b")
    assert (error.url, error.key) == ("u", "a")
