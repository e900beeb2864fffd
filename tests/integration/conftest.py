"""A real chat server for the tests of the teacher and of the judge."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import ROOT

from swift_study.io.endpoint import EndpointSettings
from swift_study.models.loading import packaged_model

READY_S = 120


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSettings]:
    """A `transformers serve` with the packaged model, on the CPU: the settings by which it is asked."""
    model = str(packaged_model(ROOT / ".cache").resolve())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log = tmp_path_factory.mktemp("server") / "server.log"
    # The model is named by its folder, and a request must name it in just the same way.
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
    command += ["--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        wait_until_ready(server, f"http://127.0.0.1:{port}/health", log)
        yield EndpointSettings(base_url=f"http://127.0.0.1:{port}/v1", model=model, max_tokens=32, attempts=2, backoff_s=0.1)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + READY_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not come up (exit code {server.poll()}):\n{log.read_text(errors='replace')[-3000:]}")
