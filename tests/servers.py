"""Servers in processes of their own, for the tests that talk to them."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(command: list[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """Run a server until the block ends; yields its address once it listens."""
    log.parent.mkdir(parents=True, exist_ok=True)
    options = {"cwd": ROOT, "env": {**os.environ, **environment}, "stderr": subprocess.STDOUT}
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, **options) as process:
        try:
            deadline = time.monotonic() + 600  # a busy machine
            while not _listens(port):
                running = process.poll() is None and time.monotonic() < deadline
                assert running, f"nothing at port {port}: {log.read_text(errors='replace')[-3000:]}"
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
