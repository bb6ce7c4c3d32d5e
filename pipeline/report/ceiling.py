"""Feature sets of a generated catalogue, between chance and its planted structure."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.features.registry import CEILINGS, PLANTED
from pipeline.report import probes
from pipeline.report.table import Table


def tables(figures: Mapping[str, Any] | None) -> list[Table]:
    """Return the table of probes.json; none without planted sets.

    A column per probe has shares of the way to each of CEILINGS.
    """
    read = [probed for probed in probes.read(figures).values() if probed.of("raw", probed.probe.figure)]
    columns: dict[str, dict[str, list[float]]] = {}
    for probed in read:
        of = probed.of("raw", probed.probe.figure)
        rooms = [(of[one], room) for one in CEILINGS if one in of and (room := of[one] - of[probes.CHANCE]) > 0]
        if PLANTED in of and rooms:
            shares = {name: [1 - (top - value) / room for top, room in rooms] for name, value in of.items()}
            columns[probed.probe.name] = shares
    if not columns:
        return []
    first = next(iter(columns.values()))
    names = sorted((name for name in first if name not in (probes.CHANCE, *CEILINGS)), key=lambda name: -first[name][0])
    note = (
        "The shoppers of this catalogue are generated, so the ceiling is known: what is planted. Shares of the way "
        "from chance to it, raw, by headline figures: to all that is planted, to its part in texts, to its part in "
        "images."
    )
    rows = [[name, *(_cell(column.get(name, [])) for column in columns.values())] for name in names]
    return [Table("From chance to what is planted", note, ["feature set", *columns], rows)]


def _cell(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)
