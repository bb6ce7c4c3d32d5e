"""Addresses of releases: a path, file://, http(s)://, s3://bucket/prefix, hf://datasets/owner/name, or `sample`."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from alignrec.pipeline.errors import UserError
from alignrec.pipeline.release.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    import httpx

SAMPLE = "sample"  # the small release that the package carries, so that a first look needs no network
SAMPLE_FILE = f"{SAMPLE}.zip"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+)*")
DATASET = re.compile(r"datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?/?(.*)")
INVALID = "the address is not valid: its host or port cannot be; write it as https://host/folder"  # names no password


def locate(address: str) -> str:
    """Return the path of the package's zip file for SAMPLE, unless there is a path of this name; else the address."""
    embedded = address == SAMPLE and not Path(address).exists()
    return str(Path(str(files("alignrec"))) / SAMPLE_FILE) if embedded else address


def is_archive(address: str) -> bool:
    if scheme_of(address) != "file":
        return False
    path = path_of(address)
    return path.suffix.lower() == ".zip" and not path.is_dir()


def scheme_of(address: str) -> str:
    scheme = _split(address).scheme.lower() if "://" in address else "file"
    if scheme not in ("file", "http", "https", "s3", "hf"):
        raise UserError(f"cannot use '{scheme}' addresses; use a path, https://, s3:// or hf://datasets/")
    return scheme


def path_of(address: str) -> Path:
    plain = unquote(_split(address).path) if address.lower().startswith("file:") else address
    return Path(_base(plain) or "/")


def s3_path(address: str) -> str:
    """Return bucket[/prefix]; UserError, without the address, if it names no bucket: it may hold keys."""
    path = _base(address.removeprefix("s3://"))
    if not BUCKET.fullmatch(path):
        raise UserError(
            "s3://: the address names no bucket; write s3://bucket/prefix, and give keys as AWS_* variables"
        )
    return path


def hf_parts(address: str) -> tuple[str, str, str]:
    """Return repository, revision and path of hf://datasets/owner/name[@revision][/path]; UserError for another."""
    path = _base(address.removeprefix("hf://"))
    if not (found := DATASET.fullmatch(path)):
        raise UserError(f"hf://{path}: names no dataset repository; write hf://datasets/owner/name")
    return found[1], unquote(found[2] or "main"), found[3]


def web_address(address: str) -> httpx.URL:
    """Return an http(s) address, without a trailing slash; UserError, without the address, if it is not valid."""
    from alignrec.pipeline.http.client import Blocked, parse

    parts = _split(address)
    try:
        return parse(parts._replace(path=_base(parts.path), fragment="").geturl())
    except Blocked:
        raise UserError(INVALID) from None


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        raise UserError(INVALID) from None


def _base(path: str) -> str:
    return path.rstrip("/").removesuffix(f"/{MANIFEST}").rstrip("/")
