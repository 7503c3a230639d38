"""Reading images starts no program: EPS, which Pillow gives to Ghostscript, is refused wherever images are read."""

from __future__ import annotations

import ast
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import ImageDecodeError, SlgWdsError
from slg_wds.images import decode, image_extension, image_size, reencode
from slg_wds.images.header import FORMATS
from support.models.names import TINY
from support.sets import trust_sets

PACKAGE = Path(slg_wds.__file__).parent
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 72 60\n%%EndComments\n"
    b"0 0 moveto 72 60 lineto stroke\nshowpage\n%%EOF\n"
)


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the only `gs` of the path makes when it is started."""
    witness = tmp_path / "STARTED"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {witness}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return witness


def test_pillow_itself_starts_ghostscript(ghostscript: Path) -> None:
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        Image.open(io.BytesIO(EPS)).load()
    assert ghostscript.exists()


def test_an_eps_is_no_image(ghostscript: Path) -> None:
    for read in (decode, image_size, image_extension, lambda data, path: reencode(data, 10, path=path)):
        with pytest.raises(ImageDecodeError, match="not an image that can be read: it begins b'%!PS"):
            read(EPS, path="n01/a.jpg")
    assert not ghostscript.exists()


def test_no_command_starts_it(
    ghostscript: Path, small_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(small_images, tmp_path / "images"))
    labels = trust_sets.make(images, tmp_path / "labels")
    loader = trust_sets.loader_of(labels, images)
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=str(labels), fkd_dir=str(tmp_path / "fkd")))
    for path in images.rglob("*.jpg"):
        path.write_bytes(EPS)
    with tarfile.open(tmp_path / "images-0.tar", "w") as tar:
        tar.add(next(images.rglob("*.jpg")), "a.jpg")
    teacher = ["-a", TINY, "--teacher_source", "private"]
    new = str(tmp_path / "new")
    for command in (
        ["generate", str(images), *teacher, "--save-path", new, "--num_crops", "2"],
        ["generate", str(images), *teacher, "--dry-run", "--num_crops", "2"],
        ["generate", str(tmp_path / "images-0.tar"), *teacher, "--save-path", new, "--num_crops", "2"],
        ["generate", str(images), *teacher, "--save-path", new, "--embed-images", "max-side=20"],
        [
            "import",
            str(tmp_path / "fkd"),
            "--images",
            str(images),
            "--save-path",
            f"{new}-fkd",
            "--processes",
            "1",
        ],
        ["report", str(labels), "--images", str(images), "-o", str(tmp_path / "page.html")],
        ["inspect", str(labels)],
        ["verify", str(labels), "--processes", "1"],
    ):
        main(command)
    with pytest.raises(SlgWdsError):
        trust_sets.walked(loader)
    capsys.readouterr()
    assert not ghostscript.exists()


AUDITED = """
import io, sys
from PIL import Image
started = []
NAMES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
sys.addaudithook(lambda name, args: started.append((name, args)) if name in NAMES else None)
from slg_wds.errors import ImageError
from slg_wds.images import decode, image_extension, image_size, reencode

decode(open(sys.argv[1], "rb").read())
started.clear()  # torch looks for libraries by ldconfig when it is imported
Image.init()  # all of Pillow's plugins, as another library in the process may have loaded them
samples = [open(path, "rb").read() for path in sys.argv[2:]]
for name in sorted(Image.SAVE):
    out = io.BytesIO()
    try:
        Image.new("RGB", (24, 16), (200, 30, 90)).save(out, name)
    except Exception:
        continue
    samples.append(out.getvalue())
read = set()
for data in samples:
    for function in (image_size, decode, image_extension, lambda data: reencode(data, 10)):
        try:
            function(data)
        except ImageError:
            continue
        read.add(Image.open(io.BytesIO(data)).format)
print(sorted(read))
assert not started, started
"""


def test_no_format_starts_a_program(tmp_path: Path, small_images: Path, ghostscript: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(EPS)
    photograph = next(small_images.rglob("*.jpg"))
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, str(photograph), str(tmp_path / "a.jpg")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(ast.literal_eval(done.stdout)) <= set(FORMATS)
    assert {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"} <= set(ast.literal_eval(done.stdout))
    assert not ghostscript.exists()


def test_images_are_opened_in_one_place() -> None:
    """Which names the formats that may be."""
    calls = [
        (path.relative_to(PACKAGE).as_posix(), [keyword.arg for keyword in node.keywords])
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    ]
    assert calls == [("images/header.py", ["formats"])]
