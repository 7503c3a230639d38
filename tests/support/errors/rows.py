"""One input for each class of errors that raises it: the arguments of a command, or a call."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tarfile

import msgpack
import pytest
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.format.canonical import MAX_JSON_BYTES, pretty_json, seal
from slg_wds.images.folder import FolderSource
from slg_wds.replay.stages import cut_crops
from support.errors.world import row, store_options
from support.format.resealing import members_of, resealed, samples_of, tar_of
from support.models.names import TINY
from support.servers.scripted import KEYS, QUICK
from support.sets import trust_sets

SHARD = "train-000000.tar"


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


@row(errors.NoSplitError, url="images", message="no folder nowhere")
def _(world):
    return world.generate("--split", "nowhere")


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


@row(errors.ImageError, message="no image", key="n0", hint="image=")
def _(world):
    record = next(iter(slg_wds.open_labels(str(world.labels))))
    return lambda: cut_crops(32)({"record": record, "__key__": record.key})


@row(
    errors.ImageChangedError,
    message="not the image that was labelled",
    key="n0",
    url=r"\.jpg",
    hint="--images",
)
def _(world):
    with Image.open(world.photograph) as image:
        image.resize((90, 80)).save(world.photograph)
    return lambda: trust_sets.walked(world.loader())


@row(errors.ImageDecodeError, key=r"\.jpg")
def _(world):
    world.photograph.write_bytes(world.photograph.read_bytes()[:400])
    return world.generate()


@row(errors.ImageGoneError, url=r"\.jpg", key=r"\.jpg", hint="--on-error skip")
def _(world):
    path, read = world.photograph, FolderSource.read

    def gone(source, name):
        path.unlink(missing_ok=True)
        return read(source, name)

    world.stack.enter_context(pytest.MonkeyPatch.context()).setattr(FolderSource, "read", gone)
    return lambda: trust_sets.make(world.images, world.folder / "new")


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


@row(errors.MemoryFullError, message="factory failed on uint8 .*: .*CUDA out of memory", hint="--num-seg")
def _(world):
    full = (
        "import torch\n"
        "class Full(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "def factory():\n"
        "    return Full()\n"
    )
    return world.generate(arch=world.teacher(full))


@row(
    errors.DeviceError, message="factory failed on uint8 .* device cpu: .*CUDA error: gone", hint="nvidia-smi"
)
def _(world):
    gone = (
        "import torch\n"
        "class Gone(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        raise RuntimeError('CUDA error: gone')\n"
        "def factory():\n"
        "    return Gone()\n"
    )
    about = ["-a", world.teacher(gone), "--teacher_source", "private", "--split", "train"]
    return ["evaluate", str(world.images), *about]


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
    wanted = "--num_crops 12 --num_seg 16 --label_type shared_tail_k5 --samples-per-shard 4 --temp 2"
    assert world.labels.exists()
    return world.generate(*wanted.split(), to="labels")


@row(errors.ReferenceSetError, url="labels", message="12 crops", hint="--num-crops 12")
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


@row(errors.ReplayError, message="does not divide by 1 ranks", hint="take ")
def _(world):
    return lambda: world.loader(global_batch_size=2 * trust_sets.CROPS + 1)


@row(
    errors.BatchTooLargeError,
    url="labels",
    message="8 images cannot fill a batch of 60,000",
    hint="last='pad'",
)
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
