"""How far feature sets of a generated catalogue come from chance to what its generator planted."""

from collections.abc import Mapping
from typing import Any

from pipeline.encode.params import MODALITIES, variant
from pipeline.facts import probes
from pipeline.facts.table import Table
from pipeline.features.registry import PLANTED


def tables(figures: Mapping[str, Any] | None) -> list[Table]:
    """Return the table, of the content of probes.json; none where nothing is known to be planted.

    A column per probe and ceiling: all that is planted, and where they were judged, what texts and images tell of it.
    """
    read = [probed for probed in probes.read(figures).values() if probed.of("raw", probed.probe.figure)]
    ceilings = {"": PLANTED} | {
        other: variant(PLANTED, hidden) for hidden, other in zip(MODALITIES, reversed(MODALITIES), strict=True)
    }
    columns: dict[str, dict[str, float]] = {}
    for probed in read:
        of = probed.of("raw", probed.probe.figure)
        for what, ceiling in ceilings.items():
            if ceiling in of and (room := of[ceiling] - of[probes.CHANCE]) > 0:
                head = f"{probed.probe.name}, {what}s" if what else probed.probe.name
                columns[head] = {name: (value - of[probes.CHANCE]) / room for name, value in of.items()}
    first = next((column for head, column in columns.items() if "," not in head), {})
    names = sorted(
        (name for name in first if name not in (probes.CHANCE, *ceilings.values())), key=lambda name: -first[name]
    )
    if not names:
        return []
    note = (
        "The shoppers of this catalogue are generated, so the ceiling is known: what is planted. Shares of the way "
        "from chance to it, raw, by headline figures; texts, images: to what these tell of it."
    )
    rows = [[name, *(f"{column[name]:.0%}" if name in column else "" for column in columns.values())] for name in names]
    return [Table("From chance to what is planted", note, ["feature set", *columns], rows)]
