"""Every integer in the parameters has an upper bound, so that no file makes a command take for ever."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import alignrec
from pydantic import TypeAdapter

from alignrec.commands.params import SECTIONS
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features.names import KINDS
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.sources.base import SOURCES

KINDS_OF_SETTINGS = [
    *SECTIONS.values(),
    *(MODELS[name].Params for name in MODELS.built_in),
    *(ENCODERS[name].params for name in ENCODERS.built_in),
    *(SOURCES[name] for name in SOURCES.built_in),
    *(kind.params for kind in KINDS.values()),
]


def unbounded(schema: Any, path: str) -> Iterator[str]:
    if isinstance(schema, list):
        schema = dict(enumerate(schema))
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and "maximum" not in schema and "exclusiveMaximum" not in schema:
            yield path
        for key, part in schema.items():
            yield from unbounded(part, f"{path}.{key}")


@pytest.mark.parametrize("kind", KINDS_OF_SETTINGS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_integer_is_bounded(kind: type) -> None:
    assert list(unbounded(TypeAdapter(kind).json_schema(), kind.__name__)) == []


LARGE = {
    "seeds": ({"benchmark": {"seeds": 10**9}}, "'benchmark.seeds': input should be less than or equal to 1000"),
    "draws": ({"interactions": {"draws": 10**9}}, "'interactions.draws': input should be less than"),
    "budget": ({"benchmark": {"budget": 10**9}}, "'benchmark.budget': input should be less than"),
    "masks": ({"study": {"mask": {"seeds": 10**9}}}, "'study.mask.seeds': input should be less than"),
    "threads": ({"train": {"threads": 10**9}}, "'train.threads': input should be less than"),
    "a seed": ({"pretrain": {"seed": 10**30}}, "'pretrain.seed': input should be less than"),
    "cutoffs": ({"probe": {"ks": [5] * 101}}, "'probe.ks': list should have at most 100 items"),
    "a width": ({"combine": {"sets": {"linear": {"width": 10**9}}}}, "'combine.sets.linear.width': input should be"),
    "a range": ({"search": {"spaces": {"bpr": {"lr": {"low": 1, "high": 10**400}}}}}, "'search.spaces.bpr.lr.high"),
    "sweeps": (
        {"study": {"sweeps": {"s": {f"train.k{n}": [1, 2, 3, 4] for n in range(30)}}}},
        "1,152,921,504,606,846,976 combinations, and 1,000 are the most",
    ),
    "runs": ({"benchmark": {"seeds": 1000, "models": ["bpr"] * 200}}, "200,000 training runs, and 100,000 are the"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_number_that_would_take_for_ever_is_refused_at_once(tmp_path: Path, name: str) -> None:
    sections, fault = LARGE[name]
    shop = {"datasets": ["shop"], "sources": {"shop": {"kind": "sample", "users": 40, "items": 30}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(shop | sections))
    begun = time.process_time()
    result = alignrec("plan", "shop", cwd=tmp_path)
    assert time.process_time() - begun < 20
    assert result.exit_code == 1
    assert fault in " ".join(result.output.split())
