"""Every class of errors, raised by an input that is really wrong: it says where, and the command tells it in a line."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trust_sets
from photographs import TINY
from PIL import Image
from resealing import members_of, resealed, samples_of, tar_of
from scripted import KEYS, QUICK, reply, serving

import slg_wds
from slg_wds import cli, errors
from slg_wds.format.canonical import MAX_JSON_BYTES, pretty_json, seal

SHARD = "train-000000.tar"
ROWS: dict[type[errors.SlgWdsError], tuple[Callable[[World], Any], dict[str, str]]] = {}
NEVER_RAISED_THEMSELVES = {errors.FormatError}


class World:
    """What a row may break: a folder of its own, images and a set of labels in it."""

    def __init__(self, folder: Path, made: Path, images: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.made, self.stack = folder, made, stack
        self.images = trust_sets.copy_of(images, folder / "images")

    @property
    def labels(self) -> Path:
        """A set that may be written to."""
        target = self.folder / "labels"
        return target if target.exists() else trust_sets.copy_of(self.made, target)

    @property
    def photograph(self) -> Path:
        return sorted(self.images.rglob("*.jpg"))[0]

    def generate(self, *more: str, data: Path | None = None, to: str = "new", arch: str = TINY) -> list[str]:
        target = to if "://" in to else str(self.folder / to)
        options = [
            "--teacher_source",
            "private",
            "--num_crops",
            "4",
            "--num_seg",
            "4",
            "--threads-per-forward",
            "1",
        ]
        return ["generate", str(data or self.images), "-a", arch, "--save_path", target, *options, *more]

    def teacher(self, source: str) -> str:
        file = self.folder / "teacher.py"
        file.write_text(source)
        return f"{file}:factory"

    def loader(self, **options: Any) -> slg_wds.SoftLabelLoader:
        return trust_sets.loader_of(self.labels, self.images, **options)

    def inspect(self, *more: str) -> list[str]:
        return ["inspect", str(self.labels), *more]

    def export(self) -> list[str]:
        return ["export", str(self.labels), str(self.folder / "exported")]

    def rewrite(self, name: str, change: Callable[[bytes], bytes]) -> None:
        path = self.labels / name
        path.write_bytes(change(path.read_bytes()))

    def serve(self, status: int) -> str:
        return self.stack.enter_context(serving(lambda handler, _: reply(handler, status))).url

    def key(self, number: int = 0) -> str:
        return str(slg_wds.open_labels(str(self.labels)).plan.keys[number])


def row(kind: type[errors.SlgWdsError], **said: str) -> Callable[[Callable[[World], Any]], None]:
    """The call that raises `kind`; of its attributes, what must be in them."""

    def add(call: Callable[[World], Any]) -> None:
        assert kind not in ROWS
        ROWS[kind] = (call, said)

    return add


def store_options(options: dict[str, str]) -> list[str]:
    return ["--store-option", *(f"{name}={value}" for name, value in options.items())]


@row(errors.SlgWdsError, message="workers end again and again, .*exit code 3")
def _(world):
    return world.generate(
        "--devices", "cpu:2", arch=world.teacher("import os\ndef factory():\n    os._exit(3)\n")
    )


@row(errors.UsageError, message="pipe:cat", hint="SCHEME")
def _(world):
    return ["inspect", "pipe:cat x"]


@row(errors.MissingDependencyError, message="jinja2", hint="pip install")
def _(world):
    world.stack.enter_context(pytest.MonkeyPatch.context()).setitem(sys.modules, "jinja2", None)
    return ["report", str(world.labels), "-o", str(world.folder / "page.html")]


@row(errors.ImageSourceError, message="nothing.jpg")
def _(world):
    (world.folder / "list").write_text("nothing.jpg\n")
    return world.generate("--list", str(world.folder / "list"))


@row(errors.NoImagesError, url="empty")
def _(world):
    (world.folder / "empty").mkdir()
    return world.generate(data=world.folder / "empty")


@row(errors.NoTargetsError)
def _(world):
    (world.folder / "flat").mkdir()
    shutil.copy(world.photograph, world.folder / "flat" / "a.jpg")
    return ["evaluate", str(world.folder / "flat"), "-a", TINY, "--teacher_source", "private"]


@row(errors.DuplicateKeyError, url="images", message=r"\.png", hint="--keep-extensions")
def _(world):
    shutil.copy(world.photograph, world.photograph.with_suffix(".png"))
    return world.generate()


@row(errors.ImageShardError, url="images-0.tar", message="truncated|end")
def _(world):
    tar = world.folder / "images-0.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(world.photograph, "a.jpg")
    tar.write_bytes(tar.read_bytes()[:1000])
    return world.generate(data=tar)


@row(errors.ImageError, message="labels were made of", key="n0")
def _(world):
    with Image.open(world.photograph) as image:
        image.resize((90, 80)).save(world.photograph)
    return lambda: trust_sets.walked(world.loader())


@row(errors.ImageDecodeError, key=r"\.jpg")
def _(world):
    world.photograph.write_bytes(world.photograph.read_bytes()[:400])
    return world.generate()


@row(errors.ImageTooLargeError, key=r"\.jpg", message="100", hint="--max-pixels")
def _(world):
    return world.generate("--max-pixels", "100")


@row(errors.TeacherError, message="teacher.py has no function other")
def _(world):
    return world.generate(arch=world.teacher("x = 1\n").replace(":factory", ":other"))


@row(errors.UnknownArchError, message="resnet50_of_nobody", hint="resnet50")
def _(world):
    return world.generate("--teacher_source", "timm", arch="resnet50_of_nobody")


@row(errors.WeightsError, message="none.safetensors")
def _(world):
    return world.generate("--teacher_path", str(world.folder / "none.safetensors"))


@row(errors.TeacherOutputError, message="factory")
def _(world):
    nowhere = (
        "import torch\n"
        "class Nowhere(torch.nn.Module):\n"
        "    pretrained_cfg = {'input_size': (3, 32, 32), 'mean': (0.5,) * 3, 'std': (0.5,) * 3,\n"
        "                      'interpolation': 'bilinear', 'crop_pct': 0.875}\n"
        "    def forward(self, x):\n"
        "        return torch.full((len(x), 20), float('nan'))\n"
        "def factory():\n"
        "    return Nowhere()\n"
    )
    return world.generate(arch=world.teacher(nowhere))


@row(errors.RecordError, url="labels", shard=SHARD, key="n0")
def _(world):
    def change(data: bytes) -> bytes:
        found = members_of(data)
        at = next(at for at, (name, _) in enumerate(found) if name.endswith(".slg.msgpack"))
        fields = msgpack.unpackb(found[at][1])
        fields["num_crops"] += 1
        found[at] = (found[at][0], msgpack.packb(fields, use_single_float=True))
        return tar_of(resealed(found, len(samples_of(found))))

    world.rewrite(SHARD, change)
    (world.labels / "index" / "train-000000").unlink()
    return world.inspect("--key", world.key())


@row(errors.ShardError, url="labels", shard=SHARD, message="tar header")
def _(world):
    world.rewrite(SHARD, lambda data: bytes([data[0] ^ 1]) + data[1:])
    return world.export()


@row(errors.ShardTruncatedError, url="labels", shard=SHARD, message="ends at byte")
def _(world):
    world.rewrite(SHARD, lambda data: data[:-1])
    return world.export()


@row(errors.ChecksumError, url="labels", shard=SHARD, message="CRC-32 of member")
def _(world):
    world.rewrite(SHARD, lambda data: data[:600] + bytes([data[600] ^ 1]) + data[601:])
    return world.export()


@row(errors.ManifestError, url="labels/plan")
def _(world):
    world.rewrite("plan", lambda data: data[:-1])
    return world.inspect()


@row(errors.UnsupportedFeatureError, url="labels/slg.json", message="telepathy", hint="update")
def _(world):
    def change(data: bytes) -> bytes:
        fields = {name: value for name, value in json.loads(data).items() if name != "crc32"}
        return pretty_json(seal({**fields, "requires": ["telepathy"]}))

    world.rewrite("slg.json", change)
    return world.inspect()


@row(errors.LabelSetError, url="labels", shard=SHARD, key="n0", message="not there yet")
def _(world):
    key = world.key()
    (world.labels / SHARD).unlink()
    return world.inspect("--key", key)


@row(errors.NotALabelSetError, url="images", hint="check the path")
def _(world):
    return ["inspect", str(world.images)]


@row(errors.IncompleteSetError, url="labels", message="1 of 2 shards", hint="finish it")
def _(world):
    for name in (SHARD, "_info.json"):
        (world.labels / name).unlink()
    return world.export()


@row(errors.IdentityMismatchError, url="labels", message="temperature")
def _(world):
    wanted = [
        "--num_crops",
        "12",
        "--num_seg",
        "16",
        "--label_type",
        "shared_tail_k5",
        "--samples-per-shard",
        "4",
        "--temp",
        "2",
    ]
    assert world.labels.exists()
    return world.generate(*wanted.split(), to="labels")


@row(errors.ReferenceSetError, url="labels", message="12 crops", hint="--num_crops 12")
def _(world):
    return world.generate("--reference_path", str(world.labels), "--num_crops", "100")


@row(errors.RuleError, message="full", hint="shared_tail_k5")
def _(world):
    return lambda: world.loader(rule="full")


@row(errors.InteropError, url="exported", message="not empty", hint="choose another")
def _(world):
    (world.folder / "exported").mkdir()
    (world.folder / "exported" / "mine").write_text("precious")
    return world.export()


@row(errors.LabelFileError, url="fkd", key=r"n0.*\.tar")
def _(world):
    for image in world.images.rglob("*.jpg"):
        file = world.folder / "fkd" / image.relative_to(world.images).with_suffix(".tar")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no zip, no pickle")
    new = str(world.folder / "new")
    return ["import", str(world.folder / "fkd"), "--images", str(world.images), "--save-path", new]


@row(errors.ReplayError, url="labels", message="8 images make no batch of 60000", hint="last='pad'")
def _(world):
    return lambda: world.loader(global_batch_size=60000 * trust_sets.CROPS, last="drop")


@row(errors.StoreError, url="/set", message="418")
def _(world):
    return ["inspect", f"{world.serve(418)}/set", *store_options(QUICK)]


@row(errors.NotFoundError, url="images", key="n0")
def _(world):
    loader = world.loader()
    world.photograph.unlink()
    return lambda: trust_sets.walked(loader)


@row(errors.PermissionDeniedError, url="/set", message="403")
def _(world):
    return ["inspect", f"{world.serve(403)}/set", *store_options(QUICK)]


@row(errors.StoreFullError, url="s3://bucket/set", message="507")
def _(world):
    options = store_options({**KEYS, **QUICK, "endpoint": world.serve(507)})
    return world.generate(*options, to="s3://bucket/set")


@row(errors.UnsupportedStoreError, url="/set", message="can only be read")
def _(world):
    return world.generate(*store_options(QUICK), to=f"{world.serve(404)}/set")


@row(errors.InvalidNameError)
def _(world):
    return lambda: slg_wds.store.open_store(str(world.labels)).read("../images")


@row(errors.ObjectTooLargeError, url="labels/slg.json", message=str(MAX_JSON_BYTES))
def _(world):
    world.rewrite("slg.json", lambda data: bytes(MAX_JSON_BYTES + 1))
    return world.inspect()


@row(errors.OutOfRangeError, url=f"labels/{SHARD}")
def _(world):
    key = world.key(3)
    world.rewrite(SHARD, lambda data: data[:1000])
    return world.inspect("--key", key)


@row(errors.StoreUnavailableError, url="/set")
def _(world):
    listener = world.stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))  # bound but not listening: refused
    return ["inspect", f"http://127.0.0.1:{listener.getsockname()[1]}/set", *store_options(QUICK)]


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("errors")
    images = trust_sets.small_photographs(photographs, folder / "images")
    return trust_sets.make(images, folder / "labels"), images


@pytest.fixture
def world(made, tmp_path):
    with contextlib.ExitStack() as stack:
        yield World(tmp_path, *made, stack)


def every_class() -> set[type[errors.SlgWdsError]]:
    found = (value for value in vars(errors).values() if isinstance(value, type))
    return {kind for kind in found if issubclass(kind, errors.SlgWdsError)}


def test_the_table_is_of_all_classes():
    assert set(ROWS) == every_class() - NEVER_RAISED_THEMSELVES


def test_what_is_no_row_is_never_raised_itself():
    names = {kind.__name__ for kind in NEVER_RAISED_THEMSELVES}
    for path in Path(slg_wds.__file__).parent.rglob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        assert not names & {ast.unparse(call).rpartition(".")[2] for call in calls}, path


def raised_by(call: Any) -> errors.SlgWdsError:
    """The error of a public call, or of a command's body."""
    with pytest.raises(errors.SlgWdsError) as raised:
        if callable(call):
            call()
        else:
            name, *rest = call
            command = cli.COMMANDS[name]
            cli._resolve(command.body)(cli._parse(name, command, rest))
    return raised.value


def ran(arguments: list[str]) -> tuple[int, str]:
    """Exit code and stderr of the command: of a real process where it starts quickly."""
    if arguments[0] == "inspect":
        command = [sys.executable, "-W", "error", "-m", "slg_wds", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout == ""
        return done.returncode, done.stderr
    with contextlib.redirect_stderr(io.StringIO()) as said:
        return cli.main(arguments), said.getvalue()


def without_times(text: str) -> str:
    return re.sub(r"\d[\d.]*(ms|s)\b", "", text)


def rows() -> list[object]:
    slow = {errors.SlgWdsError}  # six processes that import torch
    return [pytest.param(kind, marks=[pytest.mark.slow] * (kind in slow), id=kind.__name__) for kind in ROWS]


@pytest.mark.parametrize("kind", rows())
def test_error(world, kind):
    call, said = ROWS[kind]
    call = call(world)
    error = raised_by(call)
    assert type(error) is kind, error
    for name, wanted in said.items():
        assert re.search(wanted, str(getattr(error, name))), (name, wanted, str(error))
    assert "\n" not in str(error)
    if callable(call):
        return
    code, text = ran(call)
    assert code == (2 if kind is errors.UsageError else 1), text
    assert without_times(text.splitlines()[-1]) == without_times(f"slg-wds {call[0]}: {error}")
    assert "Traceback" not in text


def test_commands_that_fail_leave_nothing(world):
    for kind in (errors.ImageTooLargeError, errors.LabelFileError, errors.TeacherOutputError):
        raised_by(ROWS[kind][0](world))
        assert not list(world.folder.rglob("new/*.tar"))
        assert not (world.folder / "new" / "_info.json").exists()
