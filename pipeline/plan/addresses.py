"""Whether the files that a run begins with are there: one short question an address, all at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline import engine
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError, one_line
from pipeline.http.fetch import local
from pipeline.pretrain.params import Pretrain
from pipeline.sources.base import Downloaded
from pipeline.sources.download import keys
from pipeline.sources.feature_files import HUB
from pipeline.sources.many_files import hub_size, parts

TIMEOUT = 10.0
"""seconds that an address has"""
ASKED = 8
"""at a time"""
WEIGHTS = ("init", "tokenizer", "vqkd")
"""keys of `pretrain` that name files"""


class Answer(NamedTuple):
    """What was found at a file's addresses."""

    key: str
    """of the parameters, that names the file"""
    address: str
    """that answered, or the first"""
    size: int | None
    """bytes; None: the server does not say"""
    fault: str
    """why none of the addresses gives it; empty where one does"""


def named(params: Parameters, dataset: str) -> dict[str, Sequence[str]]:
    """Return key of the parameters -> addresses, of all files that the stages of a dataset fetch whole."""
    source, own = params.source(dataset), params[Pretrain]
    files = source.files() if isinstance(source, Downloaded) else {}
    return {keys(dataset, [role]): mirrors for role, mirrors in files.items()} | {
        f"pretrain.{key}": [address] for key in WEIGHTS if (address := getattr(own, key))
    }


def ask(addresses: Mapping[str, Sequence[str]]) -> list[Answer]:
    """Return what each file's addresses answer, the first that gives it; no byte of a file is kept."""
    found = engine.map(lambda: _first, addresses.items(), engine.Threads(ASKED))
    return [answer for _, answer in found]


def advice(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a line for each file that is nowhere: why, and the key that takes a path."""
    for answer in answers:
        if answer.fault:
            yield f"{answer.key}: {answer.fault}; give a path of this machine: {answer.key}: PATH"


def _first(named: tuple[str, Sequence[str]]) -> Answer:
    (key, addresses), faults = named, []
    for address in addresses:
        try:
            return Answer(key, address, _size(address), "")
        except UserError as e:
            faults.append(one_line(e))
    return Answer(key, addresses[0], None, "; ".join(dict.fromkeys(faults)))


def _size(address: str) -> int | None:
    """Return the bytes of the file at an address; UserError, if it is not there."""
    if address.startswith(HUB):
        return hub_size(address)
    path = local(address)
    if path is not None:
        if path.is_dir():
            return sum(file.stat().st_size for file in parts(path))
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        return path.stat().st_size
    from pipeline.http import ranged
    from pipeline.http.retries import TransientError

    with ranged.client(TIMEOUT) as client:
        try:
            with ranged.request(client, address, address, 0) as response:
                status, headers = response.status_code, response.headers
        except TransientError as e:
            raise UserError(f"{address}: {e}: {e.detail}" if e.detail else f"{address}: {e}") from None
    if not 200 <= status < 300:
        raise UserError(f"{address}: HTTP {status}")
    if headers.get("content-type", "").startswith("text/html"):
        raise UserError(f"{address}: a web page")
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None
