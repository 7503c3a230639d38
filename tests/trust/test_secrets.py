"""Secrets in every place that accepts one never appear in output, objects of a set, files or logs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slg_wds.store import open_store
from support.models.names import TINY
from support.paths import MODELS, TOOLS
from support.servers.s3 import S3Server
from support.servers.website import web_server

PASSWORD, SIGNATURE, KEY = "pa55w0rdOfUrl", "51gnatureOfUrl", "k3yOfNobody"
SECRETS = (PASSWORD, SIGNATURE, KEY, "owner-secret")
STUDENT = MODELS / "tiny_students.py"


class World:
    """Commands whose store options, URLs and environment hold secrets, and all that they said."""

    def __init__(self, server: S3Server, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        host = server.endpoint.removeprefix("http://")
        self.given = [f"{name}={value}" for name, value in server.options().items()]
        self.options = ["--store-option", *self.given]
        self.endpoint_with_password = f"endpoint=http://key:{PASSWORD}@{host}"
        self.environment = {
            **os.environ,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "NO_PROXY": "127.0.0.1",
            "COLUMNS": "400",
        }

    def run(self, *command: object, code: int = 0, program: tuple[str, ...] = ("-m", "slg_wds")) -> str:
        """What the command said; it ends with that exit code."""
        done = subprocess.run(
            [sys.executable, *program, *map(str, command)],
            capture_output=True, text=True, timeout=200, env=self.environment, cwd=self.folder, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert not found_in(said.encode()), (command, said)
        return said


def found_in(data: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in data]


def assert_clean(folder: Path) -> int:
    """No file below the folder holds a secret; how many were looked into."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert not found_in(path.read_bytes()), path
        assert not found_in(os.fsencode(path))
    return len(files)


@pytest.fixture
def world(s3_server: S3Server, s3_url: str, tmp_path: Path) -> World:
    return World(s3_server, s3_url, tmp_path)


@pytest.fixture
def website(small_images: Path, tmp_path: Path) -> Iterator[str]:
    """A web server with a tar of images, at a URL with a password in it."""
    (tmp_path / "site").mkdir()
    files = sorted((small_images / "train").rglob("*.jpg"))
    subprocess.run(
        ["tar", "-cf", tmp_path / "site" / "images-0.tar", *[f.name for f in files[:1]]],
        cwd=files[0].parent,
        check=True,
    )
    with web_server(tmp_path / "site") as script:
        yield re.sub("://", f"://key:{PASSWORD}@", script.url)


TEACHER = ["-a", TINY, "--teacher_source", "private", "--num_crops", "6", "--samples-per-shard", "4"]


def teacher(world: World) -> list[str]:
    return [*TEACHER, *world.options]


@pytest.mark.slow
def test_commands_that_work(world, small_images, website, s3_server, tmp_path):
    a, b = f"{world.url}/a", f"{world.url}/b"
    world.run("generate", small_images, *teacher(world), "--save-path", a, "--embed-images", "original")
    web = world.run("generate", f"{website}/images-0.tar", *TEACHER, "--save-path", tmp_path / "web")
    assert "complete" in web
    assert "http://***@" in (tmp_path / "web" / "slg.json").read_text()
    world.run("generate", small_images, *teacher(world), "--dry-run")
    world.run("ensemble", a, "--save-path", b, "--processes", "1", *world.options)
    world.run("inspect", a, "--json", *world.options)
    assert "http://***@" in world.run("inspect", tmp_path / "web")
    world.run("verify", a, "--json", "--processes", "2", *world.options)
    world.run("export", a, tmp_path / "fkd", *world.options)
    world.run(
        "import", tmp_path / "fkd", "--images", small_images, "--save-path", f"{world.url}/c", "--num-classes",
        "20", "--processes", "1", *world.options,
    )  # fmt: skip
    world.run("report", a, "-o", tmp_path / "page.html", *world.options)
    world.run("report", tmp_path / "web", "-o", tmp_path / "web.html")
    student = [
        "-a",
        f"{STUDENT}:plain",
        "--softlabel_path",
        a,
        "-b",
        "8",
        "--num_crops",
        "1",
        "--epochs",
        "1",
        "-j",
        "1",
    ]
    more = ["--save_checkpoint_path", tmp_path / "student", "--cache-dir", tmp_path / "cache"]
    program = (str(TOOLS / "train_student.py"),)
    world.run(
        *student, *more, *world.options, code=2, program=program
    )  # it takes one with each --store-option
    options = [word for option in world.given for word in ("--store-option", option)]
    world.run(*student, *more, *options, program=program)
    store = open_store(world.url, s3_server.options())
    names = [entry.name for entry in store.list()]
    assert len(names) > 10 and not any(found_in(store.read(name)) for name in names)
    assert assert_clean(tmp_path) > 15


@pytest.mark.slow
def test_commands_that_fail(world, small_images, website):
    dead = f"endpoint=http://key:{PASSWORD}@127.0.0.1:9"
    wrong = [option for option in world.given if "secret" not in option]
    signed = f"https://127.0.0.1:9/x.tar?X-Amz-Signature={SIGNATURE}"
    for code, command in (
        (1, ["inspect", world.url, "--store-option", *wrong, f"secret_access_key={KEY}"]),
        (1, ["inspect", world.url, "--store-option", dead, f"secret_access_key={KEY}", "access_key_id=a"]),
        (2, ["inspect", signed]),
        (2, ["generate", signed, *TEACHER, "--save-path", "x"]),
        (1, ["inspect", f"s3://key:{PASSWORD}@bucket/x?sig={SIGNATURE}#a//", *world.options]),
        (1, ["inspect", f"{website}/nothing"]),
        (1, ["export", f"{website}/nothing", "x"]),
        (1, ["generate", f"{website}/none.tar", *TEACHER, "--save-path", "x"]),
        (1, ["generate", small_images, *TEACHER, "--save-path", f"{website}/x"]),
        (1, ["report", f"{website}/nothing"]),
        (2, ["inspect", world.url, "--store-options", f"secret_access_key={KEY}"]),
        (2, ["inspect", world.url, "--store-option", f"secret_access_key:{KEY}"]),
        (
            2,
            [
                "inspect",
                world.url,
                "--store-option",
                f"secret_acces_key={KEY}",
                "timeout=x",
                f"sas_token={KEY}",
            ],
        ),
        (2, [f"http://key:{PASSWORD}@h/", "inspect"]),
        (2, ["inspect", "a", f"http://key:{PASSWORD}@h/?sig={SIGNATURE}"]),
    ):
        world.run(*command, code=code)
    assert_clean(world.folder)


def test_an_endpoint_with_a_password(world, small_images):
    """Whether the store takes such an endpoint or not."""
    options = [option for option in world.given if "endpoint" not in option]
    command = ["inspect", f"{world.url}/a", "--store-option", world.endpoint_with_password, *options]
    said = world.run(*command, code=1)
    assert "slg-wds inspect: " in said


def test_python_shows_none(world, small_images):
    code = (
        "import slg_wds, sys, logging\n"
        f"config = slg_wds.GenerateConfig(data='http://k:{PASSWORD}@127.0.0.1:9/x.tar?{SIGNATURE}', arch='a',\n"
        f"    save_path='s3://k:{PASSWORD}@b/x', store_options={{'token': '{KEY}'}})\n"
        "print(config, [config])\n"
        "try:\n"
        f"    slg_wds.open_labels('http://k:{PASSWORD}@127.0.0.1:9/x', store_options={{'retry_timeout': '1'}})\n"
        "except slg_wds.SlgWdsError:\n"
        "    logging.exception('no set')\n"
        "slg_wds.generate(config)\n"
    )
    said = world.run(code, code=1, program=("-c",))
    assert "Traceback" in said and "http://***@127.0.0.1:9/x" in said


@pytest.mark.slow
def test_ray_logs_none(world, small_images):
    pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as logs:  # a socket's path must be short
        world.environment["RAY_TMPDIR"] = logs
        ray = ["--engine", "ray", "--actors", "1", "--save-path", f"{world.url}/ray"]
        world.run("generate", small_images, *teacher(world), *ray)
        gone = f"http://key:{PASSWORD}@127.0.0.1:9/{{0..3}}.tar"
        world.run("generate", gone, *TEACHER, *ray[:4], "--save-path", world.folder / "no", code=1)
        looked = [path for path in Path(logs).rglob("*.*") if path.is_file() and path.stat().st_size]
        assert looked
        for path in looked:
            assert not found_in(path.read_bytes()), path
