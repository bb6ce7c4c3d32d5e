"""A stage that drops most of its input names the likely cause."""

import json
from pathlib import Path

import pytest
from commands import alignrec, error_line
from typer.testing import Result

from alignrec.pipeline.images import access as crawler
from alignrec.pipeline.io import read_json

USERS, ITEMS = 12, 10
REVIEWS = [{"reviewerID": f"u{u}", "asin": f"A{i}", "overall": 5.0, "unixReviewTime": i, "reviewText": "x"}
           for u in range(USERS) for i in range(ITEMS)]  # fmt: skip
OF_2018 = [
    {"asin": f"A{i}", "title": f"thing {i}", "category": ["Things"], "imageURL": ["x.jpg"]} for i in range(ITEMS)
]


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> str:
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(source: str, *stages: str, more: str = "") -> Result:
    """Run the stages; all but the last must succeed."""
    Path("params.yaml").write_text(f"datasets: [mine]\nsources: {{mine: {source}}}\nbenchmark: {{ks: [5]}}\n{more}")
    for stage in stages:
        result = alignrec(stage, "mine")
        assert stage == stages[-1] or result.exit_code == 0, result.output
    return result


OTHERS = [{"asin": f"B{i}", "title": "x"} for i in range(7)]


@pytest.mark.parametrize(
    ("kind", "reviews", "metadata", "stages", "facts"),
    [
        ("amazon2014", REVIEWS, OF_2018, 3, ("'category'", "sources.mine.kind: amazon2014")),
        ("amazon2018", OF_2018, REVIEWS, 2, ("10 of 10 rows", "swapped")),
        ("amazon2018", REVIEWS, REVIEWS, 3, ("no item has a text or an image", "reviewText")),
        ("amazon2018", REVIEWS, OTHERS, 3, ("none of its 7 lines", "10 items")),
    ],
)
def test_files_of_something_else(
    tmp_path: Path, kind: str, reviews: list, metadata: list, stages: int, facts: tuple
) -> None:
    names = write(tmp_path, "reviews.json", reviews), write(tmp_path, "meta.json", metadata)
    source = f"{{kind: {kind}, reviews: {names[0]}, metadata: {names[1]}}}"
    line = error_line(run(source, *("download", "interactions", "items")[:stages]))
    assert [fact for fact in facts if fact not in line] == []
    assert not any(Path("outputs").glob("items/mine/run.json"))  # the stage has not ended


def tabular(folder: Path, items: list[dict[str, object]]) -> str:
    rows = [{"user": row["reviewerID"], "item": row["asin"]} for row in REVIEWS]
    write(folder, "r.jsonl", rows)
    write(folder, "i.jsonl", items)
    return "{kind: tabular, interactions: r.jsonl, items: i.jsonl}"


@pytest.mark.parametrize("column", ["poster", "Bild"])
def test_a_column_under_another_name_is_a_warning_that_names_it(tmp_path: Path, column: str) -> None:
    items = [{"item": f"A{i}", "title": f"film {i}", column: "a.jpg"} for i in range(ITEMS)]
    result = run(tabular(tmp_path, items), "download", "interactions", "items")
    assert result.exit_code == 0
    remedy = f"name it under `columns`: {{image_urls: {column}}}"
    warning = f"no item has image_urls, but the file has '{column}'; {remedy}"
    assert result.stderr == f"warning: items mine: {warning}\n"
    assert read_json(Path("outputs/items/mine/run.json"))["notes"]["warnings"] == [warning]


def test_all_images_blocked_is_an_error_and_most_of_them_gone_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawler, "RETRIES", 0)
    items = [{"item": f"A{i}", "title": "x", "image_urls": f"http://127.0.0.1:9/{i}.jpg"} for i in range(ITEMS)]
    source, stages = tabular(tmp_path, items), ("download", "interactions", "items", "images")
    line = error_line(run(source, *stages))
    assert "images: 10 of 10 images could not be had, 10 of them blocked" in line
    result = run(source, *stages, more="images: {private_hosts: [127.0.0.1]}")
    assert result.exit_code == 0, result.output
    assert "10 of 10 images could not be had, 10 of them unreachable" in result.stderr


def test_files_that_are_all_absent_are_an_error_that_names_the_key(tmp_path: Path) -> None:
    rows = [{"item": f"A{i}", "title": "x", "image_urls": f"pictures/{i}.png"} for i in range(ITEMS)]
    Path("pictures").mkdir()
    stages = ("download", "interactions", "items", "images")
    line = error_line(run(tabular(tmp_path, rows), *stages, more="images: {folder: pictures}"))
    assert "images: not one of the 10 files that items name is there, such as 'pictures/" in line
    assert "images.folder" in line
