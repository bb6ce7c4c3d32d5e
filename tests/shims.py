"""`alignrec` and `dvc` on PATH that fork instead of starting Python, as DVC runs a process per stage.

A command sends its arguments, folder, environment and standard files to the process of the tests, which has it forked;
with several workers to the one that began them, so that the slow libraries are loaded once. `processes.started` does so
with a function.
Like the process that it is for, it ends with the other: killed, it takes all that it started along.
"""

import atexit
import json
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from multiprocessing import reduction
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from processes import CONTEXT, forked, here

ROOT = Path(__file__).parent.parent
LONGEST = 1 << 17
"""maximum size of a request in bytes"""
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [request.encode()], [0, 1, 2])
    server.recv(16) # process id
    sys.exit(int(server.recv(16)) % 256)
"""


class _Files:
    """File descriptors whose numbers differ in a forked process."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, tuple(reduction.DupFd(number) for number in self.numbers)


def _detached(*files: Any) -> tuple[int, ...]:
    return tuple(file.detach() for file in files)


STARTING = threading.Lock()
"""held where multiprocessing reads how processes ended, as each may be read once"""


def _main(name: str, arguments: list[str], folder: str, environment: dict[str, str], files: tuple[int, ...]) -> None:
    """Call a pickled function, or run the command with the modules that PYTHONPATH names."""
    forked()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.chdir(folder)
    if name:
        os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if not name:
        function, own = pickle.loads(bytes.fromhex(arguments[0]))
        return function(*own)
    os.setsid()
    sys.argv = [name, *arguments]
    own = [os.path.abspath(path) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if next((path for path in own if os.path.isdir(f"{path}/alignrec")), str(ROOT)) != str(ROOT):
        for module in [module for module in sys.modules if module.partition(".")[0] == "alignrec"]:
            del sys.modules[module]
    sys.path[:] = [*own, *(path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests")))]
    if name == "dvc":
        from dvc.cli import main

        sys.exit(main(arguments))
    from alignrec.__main__ import main as alignrec
    from alignrec.pipeline.runtime.engine import Processes

    Processes.opened = here  # type: ignore[method-assign]
    alignrec()


def _serve(connection: socket.socket) -> None:
    with connection:
        request, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
        if not request:
            return
        process = CONTEXT.Process(target=_main, args=(*json.loads(request), _Files(*files)), daemon=True)
        with STARTING:
            process.start()
        for file in files:
            os.close(file)
        with suppress(OSError):
            connection.send(str(process.pid).encode())
        if process.sentinel not in wait([process.sentinel, connection]):
            process.kill()
            with suppress(ProcessLookupError):  # a command began a group of its own
                os.killpg(process.pid, signal.SIGKILL)
        wait([process.sentinel])
        with STARTING:
            process.join()
        with suppress(OSError):
            connection.send(str(process.exitcode).encode())


def _listen(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


@cache
def folder() -> Path:
    """Return the folder with both commands, which work while this process, or the one that began it, lives."""
    if "SHIMS" in os.environ:
        return Path(os.environ["SHIMS"])
    made = Path(tempfile.mkdtemp(prefix="shims-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ["SHIMS"] = str(made)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(made / "socket"))
    listening.listen(16)
    threading.Thread(target=_listen, args=(listening,), daemon=True).start()
    for name in ("alignrec", "dvc"):
        (made / name).write_text(CLIENT.format(python=sys.executable, address=str(made / "socket")))
        (made / name).chmod(0o755)
    return made
