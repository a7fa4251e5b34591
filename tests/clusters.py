"""Real clusters and stores on this machine's loopback addresses, for the tests of where tasks run."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that this one started, and what that one started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for each in (*family, process):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


class RayNodes:
    """The nodes of a cluster, each with an address of its own: 127.0.0.2, 127.0.0.3 and so on."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}  # drivers need them too
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "500"}
        self.environment = {**os.environ, **environment, **self.variables, **quiet}
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # names of sockets must be short
        self.address = f"127.0.0.2:{free_port()}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, cpus: int) -> subprocess.Popen[bytes]:
        """Start one more node, the first of all being the head."""
        host = f"127.0.0.{2 + len(self.nodes)}"
        own = ["--head", f"--port={self.address.split(':')[1]}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={host}", f"--num-cpus={cpus}"]
        command += own if not self.nodes else [f"--address={self.address}"]
        with open(self.folder / f"node-{len(self.nodes)}.log", "wb") as log:
            self.nodes.append(
                subprocess.Popen(
                    [*command, "--disable-usage-stats"] if not self.nodes else command, env=self.environment, stdout=log, stderr=log
                )
            )
        return self.nodes[-1]

    def workers(self, node: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Return the processes of a node that do tasks just now."""
        found = psutil.Process(node.pid).children(recursive=True)
        return [each for each in found if "".join(each.cmdline()).startswith("ray::do_ordered")]


@contextlib.contextmanager
def ray_nodes(*cpus: int, **environment: str) -> Iterator[RayNodes]:
    """Give a Ray cluster with one node for each number of cores."""
    cluster = RayNodes(environment)
    try:
        for number in cpus:
            cluster.add(number)
            wait_for_text(cluster.folder / f"node-{len(cluster.nodes) - 1}.log", "Ray runtime started")
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            end(node)
        shutil.rmtree(cluster.folder, ignore_errors=True)


def wait_for_text(path: Path, text: str, timeout_s: float = 60) -> None:
    """Wait until a log says something."""
    deadline = time.monotonic() + timeout_s
    while text not in (path.read_text(errors="replace") if path.exists() else ""):
        assert time.monotonic() < deadline, path.read_text(errors="replace")[-3000:] if path.exists() else f"no {path}"
        time.sleep(0.1)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Give the variables with which this process and others reach an S3 server that has a bucket named ``bucket``."""
    port = free_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    log = folder / "s3.log"
    with open(log, "wb") as file:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=file, stderr=file)
    try:
        wait_for_text(log, "Running on")
        program = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
        subprocess.run([sys.executable, "-c", program], env={**os.environ, **variables}, check=True)
        yield variables
    finally:
        end(server)
