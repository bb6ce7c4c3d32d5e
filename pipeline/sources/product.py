"""Common form of item metadata: text fields, image addresses, and other fields as JSON."""

import json
import re
from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

NOT_A_PATH = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://|//|(?:about|blob|data|javascript|mailto):", re.IGNORECASE)


class Product(NamedTuple):
    """Fields as in the source, before cleaning; empty if the source has none."""

    title: str
    brand: str
    categories: list[str]  # path from the root
    description: str
    image_urls: list[str]  # candidates, best first
    extra: dict[str, str]  # the source's other fields: name -> JSON


def is_path(address: str) -> bool:
    return NOT_A_PATH.match(address) is None


def is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)  # drops line feeds and tabs, so a path may look like an address
        return not is_path(address) and parts.scheme in ("http", "https") and bool(parts.netloc)
    except ValueError:  # such as http://[
        return False


def as_text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(as_list(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def as_list(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str) and v.strip()]


def others(record: dict[Any, Any], kept: Collection[str]) -> dict[str, str]:
    """Return the non-empty fields not in `kept` as JSON; raise ValueError if one is nested too deeply."""
    names = {key: key if isinstance(key, str) else repr(key) for key in record if key not in kept}
    return {
        name.encode("utf-8", "replace").decode(): as_json(record[key])
        for key, name in names.items()
        if record[key] is not None and record[key] not in ("", [], {})
    }


def as_json(value: Any) -> str:
    with suppress(TypeError):  # a value without a JSON type
        return orjson.dumps(value).decode()
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_print_value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except TypeError:
        raise ValueError("a key that is no text") from None
    return text.encode("utf-8", "replace").decode()


def _print_value(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, set) else repr(value)
