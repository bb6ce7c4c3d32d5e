"""`alignrec serve` with slow, many or disconnected clients, and a release that changes meanwhile."""

import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from processes import Started, command, started

from alignrec.pipeline.release import serve

OURS = {"x-alignrec": "1"}
HEADERS, BODY = 1.0, 3
"""timeouts of a server in seconds, for the head of a request and for the rest"""
SECONDS = 60
"""for what has no bound of its own: an answer of a busy machine"""
ASK = b"POST /nearest?encoder=beit3&text=red HTTP/1.1\r\nHost: localhost\r\nX-Alignrec: 1\r\n"
HALF = ASK + b"Content-Length: 1000\r\n\r\nx"


def impatient(*arguments: str) -> None:
    serve.HEADER_SECONDS, serve.BODY_SECONDS = HEADERS, BODY
    command(*arguments)


@contextmanager
def server(release: Path, main: Callable[..., None] = command) -> Iterator[tuple[str, int, Started]]:
    with started(main, "serve", str(release), "--port", "0") as process:
        line = process.stdout.readline()
        assert line.startswith("serving: http://"), line
        address = line.split()[1]
        yield address, int(address.rstrip("/").rpartition(":")[2]), process


@pytest.fixture(scope="module")
def running(encoding: Path) -> Iterator[tuple[str, int, Started]]:
    with server(encoding, main=impatient) as made:
        yield made


def opened(stack: ExitStack, port: int, sent: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    connection.sendall(sent)
    return connection


def wait_until_closed(connection: socket.socket) -> None:
    connection.settimeout(SECONDS)
    with suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass


def answered(address: str) -> int:
    return httpx.post(f"{address}nearest?encoder=beit3&text=red", headers=OURS, timeout=SECONDS).status_code


@pytest.mark.parametrize(
    ("sent", "clients"),
    [(HALF, 20), *((head, 70) for head in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"))],
)
def test_unfinished_requests_end(running: tuple[str, int, Started], sent: bytes, clients: int) -> None:
    address, port, _ = running
    with ExitStack() as stack:
        waiting = [opened(stack, port, sent) for _ in range(clients)]
        assert answered(address) == 200
        for connection in waiting:
            wait_until_closed(connection)


def test_a_release_that_changes_is_said_in_one_line(encoding: Path, tmp_path: Path) -> None:
    release = shutil.copytree(encoding, tmp_path / "release")
    with server(release) as (address, port, process):
        for _ in range(3):  # clients that leave are no traceback
            with ExitStack() as stack:
                opened(stack, port, HALF)
        path = release / "features/beit3-image-masked/features-00000.parquet"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        answer = httpx.post(f"{address}nearest?encoder=beit3-image-masked&text=red", headers=OURS, timeout=SECONDS)
        assert (answer.status_code, "changed" in answer.json()["error"]) == (503, True)
        assert answered(address) == 200
        process.send_signal(signal.SIGINT)
        output = "".join(process.communicate(timeout=SECONDS))
    assert output.count("changed") == 1
    assert "Traceback" not in output
