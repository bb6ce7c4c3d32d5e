"""Sentences of docs/study.md about tables are true of what git keeps of the recorded runs."""

import re
from pathlib import Path
from typing import Any

from alignrec.pipeline import io

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "outputs" / "figures" / "sample"
PAGE = " ".join((ROOT / "docs" / "study.md").read_text().split())


def table(name: str, number: int = 0) -> list[dict[str, str]]:
    """Return the rows of a table, column -> cell without marks."""
    kept: dict[str, Any] = io.read_json(FIGURES / f"article-{name}.json")[number]
    return [dict(zip(kept["head"], (cell.strip("*") for cell in row), strict=True)) for row in kept["rows"]]


def mean(cell: str) -> float:
    return float(cell.split(" ±")[0])


def recall_by_set(model: str) -> dict[str, float]:
    rows = table("recommenders")
    return {row["features"]: mean(row["Recall@20"]) for row in rows if row["model"] == model}


def test_content_that_is_used_directly_may_hurt() -> None:
    assert "Content that is used directly may hurt" in PAGE
    bpr, lightgcn = recall_by_set("bpr")["none"], recall_by_set("lightgcn")["none"]
    vbpr, mmgcn = recall_by_set("vbpr"), recall_by_set("mmgcn")
    assert {"beit3", "minilm-cnn", "shuffled"} <= vbpr.keys() & mmgcn.keys()

    # MMGCN is below BPR and LightGCN on every feature set; VBPR below LightGCN
    assert max(mmgcn.values()) < min(bpr, lightgcn)
    assert max(vbpr.values()) < lightgcn
    assert vbpr["shuffled"] < bpr


def test_without_cca_vectors_collapse_at_first_and_recover() -> None:
    assert "without CCA, vectors at first collapse towards one direction (*id energy*), then recover" in PAGE
    energy: dict[str, list[float]] = {}
    for row in table("geometry"):
        energy.setdefault(row["without"], []).append(mean(row["id energy"]))
    first, last = energy["cca"][0], energy["cca"][-1]
    assert first > 4 * energy["nothing"][0]
    assert last < first / 2


def test_reg_separates_an_items_vectors_and_uia_joins_users_and_items() -> None:
    assert "two vectors (*content id*) are a little closer without REG" in PAGE
    assert "users and items (*user item*) further apart without UIA" in PAGE
    last = {row["without"]: row for row in table("geometry")}
    assert mean(last["reg"]["content id"]) > mean(last["nothing"]["content id"])
    assert mean(last["uia"]["user item"]) < mean(last["nothing"]["user item"])


def test_fifty_steps_help_after_a_single_pass() -> None:
    assert "is better on encoders of 50 steps than on an untrained one, significantly" in PAGE
    untrained, without_teachers, with_teachers = table("single-pass")
    recalls = [mean(row["valid Recall@20"]) for row in (untrained, without_teachers, with_teachers)]
    assert recalls == sorted(recalls)
    assert all(float(row["p"].removeprefix("≤ ")) < 0.05 for row in (without_teachers, with_teachers))


def test_the_rarest_items_gain_from_alignrec() -> None:
    assert "the rarest items gain" in PAGE
    for row in table("exposure"):
        tenth = re.search(r"items in tenth (\d+) ", row[""])
        if tenth and int(tenth[1]) <= 3:
            others = [mean(cell) for name, cell in row.items() if name not in ("", "alignrec")]
            assert mean(row["alignrec"]) > max(others)


def bounds(cell: str) -> tuple[float, float]:
    """Return the ends of an interval such as "-1% .. 28%"."""
    low, high = (float(end.rstrip("%")) for end in cell.split(" .. "))
    return low, high


def test_images_add_a_small_part_and_texts_at_least_what_planted_ones_do() -> None:
    assert "Texts add at least what planted ones do." in PAGE
    assert "which is above zero in three of five probes, and surest on cold items" in PAGE
    rows = table("added")
    texts = [float(row["share"].rstrip("%")) for row in rows if row["modality"] == "text"]
    images = {row["probe"]: bounds(row["95 % interval"]) for row in rows if row["modality"] == "image"}
    assert min(texts) >= 100
    assert sum(low > 0 for low, _ in images.values()) == 3
    assert max(images, key=lambda probe: images[probe][0]) == "cold items"
    assert "on cold items, images add 8 to 14 % of what planted ones do" in PAGE
    assert images["cold items"] == (8, 14)


def test_fillings_help_where_some_images_are_missing_and_not_where_texts_are() -> None:
    assert "and three of the fillings regain it" in PAGE
    assert "no filling changes AlignRec's recall significantly, though hops raise zero-shot" in PAGE
    rows = table("missing")
    recalls = {(row["missing"], row["filling"]): mean(row["test Recall@20"]) for row in rows}
    zeros = {missing: recall for (missing, filling), recall in recalls.items() if filling == "zeros"}
    whole = recalls["nothing", ""]
    assert zeros["image of 40%"] < zeros["image of 80%"] < whole

    significant = {(row["missing"], row["filling"]) for row in rows if row["p"].startswith("≤")}
    assert len(significant) == 3
    assert all(
        missing == "image of 40%" and recalls[missing, filling] > zeros[missing] for missing, filling in significant
    )
    hits = {(row["missing"], row["filling"]): float(row["zero-shot hit@20"]) for row in rows}
    for missing in ("text of 40%", "text of 80%"):
        assert hits[missing, "several hops"] > hits[missing, "zeros"]
