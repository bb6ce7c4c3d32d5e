"""The registry of sources; a new one is a file with a Source (base.py), and an entry here."""

from typing import Any

from alignrec.pipeline.config.base import checked, nearest
from alignrec.pipeline.config.parameters import Source
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.harness.registry import Registry

SOURCES: Registry[type[Source]] = Registry(
    "sources",
    {
        "sample": "alignrec.pipeline.sources.sample:SampleSource",
        "amazon2014": "alignrec.pipeline.sources.amazon:Amazon2014",
        "amazon2018": "alignrec.pipeline.sources.amazon:Amazon2018",
        "amazon2023": "alignrec.pipeline.sources.amazon:Amazon2023",
        "mmrec": "alignrec.pipeline.sources.mmrec:MmrecSource",
        "tabular": "alignrec.pipeline.sources.tabular:TabularSource",
    },
)  # kind -> source


def declared(raw: Any, where: str) -> Source:
    """Return a source from its entry under `sources`; UserError for an unknown kind, or what the kind refuses."""
    if isinstance(raw, Source):
        return raw
    if not isinstance(raw, dict) or "kind" not in raw:
        raise UserError(f"'{where}.kind' is required; valid: {', '.join(SOURCES)}")
    if not isinstance(raw["kind"], str) or raw["kind"] not in SOURCES:
        raise UserError(f"'{where}.kind': no '{one_line(raw['kind'], 64)}'{nearest(str(raw['kind']), SOURCES)}")
    return checked(SOURCES[raw["kind"]], raw, where)
