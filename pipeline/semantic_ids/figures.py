"""The schema of the figures in codes.json, closed and bounded: a release's file is untrusted, and pages show it."""

from typing import Annotated, Any

from pydantic import Field, create_model

from pipeline.config.base import Section

Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Known = Number | None


def _closed(name: str, kinds: dict[Any, str], **optional: Any) -> Any:
    """Return a closed schema: type -> its fields, separated by spaces; and optional fields."""
    fields: dict[str, Any] = {field: (kind, ...) for kind, names in kinds.items() for field in names.split()}
    return create_model(name, __base__=Section, **(fields | optional))


def _rows(kind: Any) -> Any:
    return Annotated[list[kind], Field(min_length=1, max_length=64)]


SHARED = "neighbours neighbours_chance"
UNKNOWN: tuple[Any, None] = (Known, None)
Collisions = _closed("Collisions", {Number: "before after"}, head=UNKNOWN, middle=UNKNOWN, tail=UNKNOWN)
Level = _closed("Level", {Number: "used perplexity gini", Known: SHARED})
PAIRS = f"{SHARED} co_purchase co_purchase_chance category category_chance"
Prefix = _closed("Prefix", {Count: "length distinct", Number: "bits most_bits", Known: PAIRS})
Skipped = _closed("Skipped", {Text: "skipped"})
TESTED = "original reconstructed chance difference low high p_holm"
Probed = _closed("Probed", {Text: "measure", Number: TESTED}, users=(Count | None, None), items=(Count | None, None))
PROBE: tuple[Any, Any] = (Probed | Skipped, Skipped(skipped=""))
Reconstruction = _closed("Reconstruction", {}, cosine=UNKNOWN, zero_shot=PROBE, item_cf=PROBE)
Quality = _closed(
    "Quality",
    {
        bool: "control",
        Count: "items without_content",
        Collisions: "collisions",
        _rows(Level): "levels",
        _rows(Prefix): "prefixes",
        Reconstruction | Skipped: "reconstruction",
    },
)


def bounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the given figures, possibly none; pydantic.ValidationError for what no judge writes."""
    if figures:
        Quality.model_validate(figures)
    return figures
