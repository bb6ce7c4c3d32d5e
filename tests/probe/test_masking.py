"""Mask modality on a shop of two tastes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shops

import schemas
from pipeline import io
from pipeline.evaluation import cutoff
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.protocol import protocol
from pipeline.layout import Layout
from pipeline.models.alignrec import AlignRec
from pipeline.params import Params
from pipeline.probe import masking
from pipeline.probe.masking import Job, Trial
from pipeline.report import tables
from pipeline.run import running
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit
from stages.probe import main


def params(rule: str) -> Params:
    sections = {
        "datasets": ["shop"],
        "sources": {"shop": {"kind": "sample"}},
        "train": {"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01},
        "graph": {"k": 4},
        "probe": {"mask_seeds": 2, "workers": 1},
        "benchmark": {"protocol": rule},
    }
    return Params.model_validate(sections)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a shop whose feature set also exists with each modality masked."""
    layout = shops.outputs(tmp_path)
    table = io.read_features(layout.features("f"))
    for n, modality in enumerate(masking.MODALITIES, start=1):
        changed = table.drop_columns(["vector"]).append_column("vector", io.vectors(shops.content(n)))
        path = io.shard(layout.features(masking.variant("f", modality)), "features", 0)
        io.write_table(changed, path, schemas.features(shops.WIDTH))
    return layout


def test_a_record_is_judged_by_the_protocol_that_it_names(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutoff, "CUTOFF", 9)  # among 20 of these items is every target
    parts, recalls = shops.two_tastes(), []
    for rule in ("mmrec", "strict"):
        settings = params(rule)
        rules = protocol(settings, "shop", parts)
        (record,) = Trial(layout, settings, rules)(Job("f", masking.NOTHING, 0))
        fitted = fit(AlignRec, *inputs.read(layout, "f"), settings.train, seed_for("mask", "shop", 0))
        expected = evaluate(fitted.user, fitted.item, parts, "test", [9], rules.seen(parts, "test"))
        assert record["recall@20"] == expected.mean["recall", 9]
        assert (record["protocol"], record["fingerprint"]) == (rule, rules.fingerprint)
        recalls.append(record["recall@20"])
    assert recalls[1] > recalls[0]  # a valid item can no longer take a test item's place


def test_another_protocol_is_trained_and_named_anew(layout: Layout) -> None:
    io.write_table(items(), layout.items, schemas.ITEMS)
    summaries = []
    for rule in ("mmrec", "strict"):
        with running("probe", "shop", params(rule), layout.root) as run:
            main(run)
        summaries.append(io.read_json(layout.probes)["mask_modality"])
    assert [(summary["protocol"], set(summary) - {"protocol", "fingerprint"}) for summary in summaries] == [
        ("mmrec", {"f"}),
        ("strict", {"f"}),
    ]
    assert summaries[0]["fingerprint"] != summaries[1]["fingerprint"]


def test_under_two_protocols_both_are_shown() -> None:
    labels = [{"protocol": name, "fingerprint": name[:1]} for name in ("alone", "every")]
    base = [Job("f", masked, 0)._asdict() for masked in (masking.NOTHING, "image")]
    recalls = ((0.4, 0.2), (0.3, 0.1))  # of each training: alone, among all
    records = [
        [job | label | {"recall@20": value} for label, value in zip(labels, values, strict=True)]
        for job, values in zip(base, recalls, strict=True)
    ]
    judged = masking.judged(records)
    assert (judged["protocol"], judged["f"]["image masked"]["relative_change"]) == ("alone", -0.25)
    (other,) = judged["also"]
    assert (other["protocol"], other["f"]["image masked"]["relative_change"]) == ("every", -0.5)
    shown = tables.probes({"mask_modality": judged})
    assert [t.note.split(",")[0] for t in shown] == ["Protocol alone", "Protocol every"]
    assert [len(t.rows) for t in shown] == [2, 2]
    assert "also" not in masking.judged([r[:1] for r in records])


def items() -> pa.Table:
    n = shops.ITEMS
    columns = {
        "item_id": np.arange(n, dtype=np.int32), "asin": [f"i{i}" for i in range(n)],
        "categories": [["x"]] * n, "image_urls": [[]] * n, "tokens": np.zeros(n, np.int32),
    }  # fmt: skip
    texts = {name: [""] * n for name in schemas.ITEMS.names if name not in columns}
    rows = columns | texts | {"text_status": ["empty"] * n, "extra": ["{}"] * n}
    return pa.table([rows[name] for name in schemas.ITEMS.names], schemas.ITEMS)
