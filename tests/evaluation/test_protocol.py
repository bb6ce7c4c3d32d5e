"""The protocol names how ratings were filtered and split; by default its fingerprint is unchanged."""

from pathlib import Path

import pytest
import shops

from alignrec.commands.params import Params
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.interactions import split
from alignrec.pipeline.train import inputs
from alignrec.stages import download, interactions

CORES = "users >= 5, items >= 5, repeatedly"


def params(**sections: object) -> Params:
    return Params.model_validate({"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}, **sections})


def test_a_least_rating_is_part_of_the_filter_and_of_the_fingerprint() -> None:
    parts = shops.two_tastes()
    rules = [protocol_of(params(interactions={"min_rating": low}), "shop", parts) for low in (None, 3, 4, 4.5)]
    assert [r.filter for r in rules[1:]] == [f"ratings >= {low}, {CORES}" for low in ("3", "4", "4.5")]
    assert len({r.fingerprint for r in rules}) == 4


@pytest.mark.parametrize("column", ["split", "fold"])
def test_a_column_with_the_split_is_imported_and_named(tmp_path: Path, column: str) -> None:
    rows = [f"u{u},i{(u + n) % 6},{('train', 'valid', 'test')[max(0, n - 2)]}" for u in range(4) for n in range(5)]
    (tmp_path / "r.csv").write_text("\n".join([f"user,item,{column}", *rows]))
    source = {"kind": "tabular", "interactions": str(tmp_path / "r.csv"), "columns": {"split": column}}
    settings = params(sources={"shop": source}, benchmark={"ks": [5]})
    layout = Layout(tmp_path / "outputs", "shop")
    for stage in (download, interactions):
        with running(stage.__name__.split(".")[-1], "shop", settings, layout.root) as run:
            stage.main(run)
    parts: split.Split = inputs.read_inputs(layout, None).split
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (12, 4, 4)  # no k-core was taken
    rules = protocol_of(settings, "shop", parts)
    assert (rules.name, rules.filter) == ("mmrec, imported", "as imported")
