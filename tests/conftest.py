"""One thread a process: the tests' matrices are tiny, and on a busy machine waiting threads cost minutes."""

import gc
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch and faiss are first imported, so set before
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else each stage looks for 50 ms whether the machine is idle
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that a test starts compiles our modules again

gc.disable()  # until all test files are imported: what they load stays

import pytest  # noqa: E402  (after the environment is set)
from hypothesis import HealthCheck, settings  # noqa: E402
from processes import FORKED, here  # noqa: E402  (which also spares the disk)

from alignrec.pipeline.runtime.engine import Processes  # noqa: E402

settings.register_profile(
    "shared machine",
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):  # not in a worker, which has this process fork
        import shims

        shims.folder()


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # else each full collection looks at a million objects of libraries
    gc.enable()
    for name in FORKED if session.config.option.collectonly else ():
        import_module(name)  # compiles it: see `make test`


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Run the workers of `engine.Processes` in this process: see `processes.here`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "opened", here)
        yield


@pytest.fixture(scope="module")
def shims() -> Iterator[None]:
    """Let `toyproject` fork `alignrec` and `dvc`: see `shims.py`."""
    import shims
    import toyproject

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toyproject, "COMMANDS", shims.folder())
        yield


@pytest.fixture
def with_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitate `dvc init` and `dvc add`, which take seconds."""
    from dvc.repo import Repo

    (tmp_path / ".dvc").mkdir()
    for name in ("add", "unprotect"):
        monkeypatch.setattr(Repo, name, lambda *_: None)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the tiny shop below its outputs; tests change copies."""
    from shop import releases, toy

    return releases.published(toy.outputs(tmp_path_factory.mktemp("plain"))).release


@pytest.fixture(scope="session")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with encoders below its outputs; tests change copies."""
    from shop import releases

    return releases.with_encoders(tmp_path_factory.mktemp("encoding")).release
