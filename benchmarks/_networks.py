"""Say under each block of figures in the docs which network it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.report.figures import NETWORK, recorded_figures
from alignrec.pipeline.runtime.layout import Layout

BY_PROFILE = (
    "recommenders",
    "tuning",
    "ablation",
    "mask",
    "tail",
    "hyper-parameters",
)  # parts of `article`
PROFILE = "alignrec profile paper && dvc repro"
DEFAULT = "make repro"
OF_RUN = re.compile(r"^Made from network `([0-9a-f]+)` of (\S+)\.$", re.MULTILINE)
OF_ANOTHER = re.compile(r"^Made from another network \(`([0-9a-f]+)`\): ", re.MULTILINE)
STATEMENT = re.compile(r"\n*^(?:Made from (?:another )?network |Not made yet: ).*\n", re.MULTILINE)


def read_network(layout: Layout) -> str:
    """Return the network of the last report, or else of the one that git keeps.

    Empty if neither recorded it.
    """
    for path in (layout.figures("metrics"), recorded_figures(layout) / "metrics.json"):
        if path.is_file():
            return str(io.read_json(path).get(NETWORK, ""))
    return ""


def networks_of(path: Path) -> list[str]:
    """Return the distinct networks of a file of tables; empty text for tables that are of none."""
    tables: Sequence[dict[str, Any]] = io.read_json(path)
    return list(dict.fromkeys(str(table.get(NETWORK, "")) for table in tables))


def stated_network(body: str) -> str:
    """Return the network that a block names; empty if it names none."""
    found = OF_RUN.search(body) or OF_ANOTHER.search(body)
    return found[1] if found else ""


def append_networks(
    body: str, kind: str, layout: Layout, parts: Sequence[str], stated: str | None
) -> tuple[str, list[str]]:
    """Return a block that ends with its networks, and commands that make stale tables again.

    `stated` is the network that a block names which cannot be rendered, else None.
    """
    current = read_network(layout)
    sources = list_sources(kind, layout, parts, stated)
    body = STATEMENT.sub("\n", body).strip("\n")
    if not body:
        commands = list(dict.fromkeys(command for command, _ in sources))
        makers = " and ".join(f"`{command}`" for command in commands)
        return f"Not made yet: {makers} makes it.\n", commands

    lines = []
    stale = []
    for command, network in sources:
        if network and network == (current or network):
            lines.append(f"Made from network `{network}` of {layout.dataset}.")
        elif network:
            lines.append(f"Made from another network (`{network}`): `{command}` makes it again.")
            stale.append(command)
    statements = "".join(f"\n{line}" for line in dict.fromkeys(lines))
    return f"{body}\n{statements}\n" if statements else f"{body}\n", stale


def list_sources(
    kind: str, layout: Layout, parts: Sequence[str], stated: str | None
) -> list[tuple[str, str]]:
    """Return the command that makes each table of a block, and the network that it reads."""
    if kind != "article":
        return [(DEFAULT, read_network(layout) if stated is None else stated)]

    folder = recorded_figures(layout)
    paths = [folder / f"article-{part}.json" for part in parts]
    sources = []
    for path in paths or sorted(folder.glob("article-*.json")):
        command = command_of(path.stem.removeprefix("article-"), layout.dataset)
        networks = networks_of(path) if path.is_file() else [stated or ""]
        sources += [(command, network) for network in networks]
    return sources


def command_of(part: str, dataset: str) -> str:
    if part in BY_PROFILE:
        return PROFILE
    return f"python -m experiments.{part.replace('-', '_')} {dataset}"


def find_mixed(pages: Iterable[str]) -> list[str]:
    """Return a fault for each dataset whose blocks name several networks as that of the run."""
    networks: dict[str, set[str]] = {}
    for page in pages:
        for network, dataset in OF_RUN.findall(page):
            networks.setdefault(dataset, set()).add(network)

    faults = []
    for dataset, found in networks.items():
        if len(found) > 1:
            names = ", ".join(sorted(found))
            faults.append(
                f"blocks of {dataset} were made from several networks ({names}); run {PROFILE}"
            )
    return faults
