"""The page shows the figures, survives hostile data and missing stages, and is self-contained."""

import base64
import io as bytes_io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from rich.console import Console
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import HEADLINE, list_comparisons
from alignrec.pipeline.report import gallery, item_map, terminal
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import format_figure, markdown
from alignrec.pipeline.report.verdict import advise
from alignrec.pipeline.runtime.layout import Layout
from benchmarks import _figures


def reported(layout: Layout, **section: int) -> str:
    """Write the report; return the page."""
    toy.run("report", toy.params(report=section), layout.root)
    return (layout.report / "index.html").read_text().replace("\u00a0", " ")  # figures do not break


def judged(layout: Layout) -> Layout:
    """Let a probe find the released set better than another."""
    won = {"probe": "zero_shot", "measure": "hit@20", "a": "beit3", "b": "minilm-cnn", "verdict": "better"}
    io.write_json(layout.probes, io.read_json(layout.probes) | {"verdicts": [won]})
    return layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return judged(toy.outputs(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def page(layout: Layout) -> str:
    return reported(layout)


@pytest.fixture(scope="module")
def text(layout: Layout, page: str) -> str:
    return (layout.report / "report.md").read_text()


class Tags(HTMLParser):
    """Start tags with attributes, and whether all tags are closed in order."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_has_every_section(page: str) -> None:
    tags = Tags(page)
    assert tags.open == []
    ids = [a["id"] for t, a in tags.tags if t == "section" and "id" in a]
    assert ids == [
        "verdict", "map", "gallery", "results", "probes", "ablations", "mask", "diagram", "data",
    ]  # fmt: skip
    links = {a["href"] for t, a in tags.tags if t == "a" and (a["href"] or "").startswith("#")}
    made = {"diagram", "data"}  # under one heading
    assert links == {f"#{i}" for i in ["made", *ids[1:]] if i not in made}


def test_the_page_loads_nothing(page: str) -> None:
    for tag, attributes in Tags(page).tags:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        assert (attributes.get("src") or "data:").startswith("data:")
        if tag == "link":
            assert attributes["href"] == "data:,"
    assert "@import" not in page
    assert set(re.findall(r"url\(([^)#][^)]{0,21})", page.split("<script")[0])) == {"data:image/jpeg;base64"[:22]}
    assert "default-src 'none'" in page

    assert [markup in page for markup in ("alert(", "<script>alert", "<b>odd</b>")] == [True, False, False]
    assert [t for t, _ in Tags(page).tags].count("script") == 1


def test_the_images_are_the_items(page: str) -> None:
    images = dict(re.findall(r"\.i(\d+)\{background-image:url\(data:image/jpeg;base64,([^)]*)\)", page))
    shown = {a["aria-label"]: a["class"] for t, a in Tags(page).tags if t == "span" and a.get("role") == "img"}
    for item, (title, colour) in enumerate(zip(toy.TITLES, toy.COLOURS, strict=True)):
        assert (str(item) in images) == (title in shown) == (colour is not None)
        if colour:
            assert f"i{item}" in (shown[title] or "").split()
            middle = decoded(images[str(item)]).getpixel((40, 40))
            assert np.abs(np.subtract(middle, colour)).max() < 12


def decoded(image: str) -> Image.Image:
    return Image.open(bytes_io.BytesIO(base64.b64decode(image))).convert("RGB")


@pytest.mark.parametrize(
    "without",
    [
        ("images", "pretrain"),
        ("images", "pretrain", "items"),
        ("probe", "benchmark"),
        ("graph",),
        ("images", "items", "pretrain", "graph", "train", "probe", "benchmark"),
    ],
)
def test_missing_stages_are_left_out(tmp_path: Path, without: tuple[str, ...]) -> None:
    layout = toy.outputs(tmp_path)
    for stage in without:
        shutil.rmtree(layout.folder(stage))
    page = reported(layout)
    assert Tags(page).open == []
    assert ('id="gallery"' in page) == ("graph" not in without and "items" not in without)
    assert ('id="results"' in page) == ("benchmark" not in without)
    assert (layout.report / "report.md").read_text().startswith("# shop")


def test_no_heading_of_the_report_is_repeated(text: str) -> None:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert "Recommenders on these features" in headings
    assert len(headings) == len({*headings})


def test_report_card_summary_and_readme_have_the_same_figures(layout: Layout, text: str) -> None:
    toy.run("publish", toy.PARAMS, layout.root)
    card = (layout.release / "README.md").read_text()
    readme = "\n".join(_figures.results(layout, [])).splitlines()
    console = Console(width=80, file=bytes_io.StringIO())
    results = io.read_table(layout.results, schemas.RESULTS)
    for table in terminal.result_tables(results, "shop"):
        console.print(table)
    summary = console.file.getvalue().splitlines()
    for row in list_comparisons(results)[0].rows:
        cells = (row.model, row.features, row.seeds, *(format_figure(row.cells[key]) for key in HEADLINE))
        line = markdown(cells, []).splitlines()[0]
        assert text.count(line) == card.count(line) == 1
        short = format_figure(row.cells["recall", 20])
        assert any(
            line.startswith(f"| {row.model} | {row.features} |") and short.replace("0.", ".") in line for line in readme
        )
        assert any(line.startswith(row.model) and row.features in line and short in line for line in summary)
    lines = text.split("### Without one part, or with one modality\n")[1].split("\n#")[0].splitlines()
    cells = [cell.strip() for cell in [line for line in lines if line.startswith("| ")][2].strip("| ").split(" | ")]
    assert any(cells[0] in line and cells[2] in line for line in summary)


def test_the_caption_of_the_readme_explains_its_columns(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "shop")
    figures = {name: {"hit@20": value} for name, value in {"linear": 0.3, "shuffled": 0.1, "chance": 0.1}.items()}
    processed = {"width": 8, "chosen_by": "valid", "forms": {}, "zero_shot": {"users": 9} | figures}
    io.write_json(layout.probes, {"zero_shot": {"users": 9} | figures, "processed": processed})
    table, blank, caption = _figures.probes(layout, ["zero_shot", "linear", "shuffled"])
    assert table.splitlines()[2:] == ["| linear | .300, .300 |", "| shuffled | .100, .100 |"]
    assert blank == ""
    assert "*zero shot*: a user's last item, from the earlier ones. `shuffled`, a control," in caption
    assert "*cold items*" not in caption
    assert caption.endswith("reduced to 8 numbers, where that helps on validation.")


def test_the_advice_is_on_the_page_in_the_terminal_and_on_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = judged(toy.outputs(tmp_path))
    notes = {"minilm": {"text_read": 0.9, "text_cut": 0.0, "text_unread": 0.25}}
    toy.write_record(layout, toy.run_record("encode") | {"notes": notes}, "minilm")
    page = reported(layout)
    sentences = advise(Outputs(layout, "sample", "beit3"))
    assert sentences[0].startswith("Use beit3 on shop (synthetic users): better than minilm-cnn in 1 of 1 comparison")
    assert sentences[-1].startswith("25% of texts cannot be read by minilm: add an encoder")
    assert f'<p class="headline">{sentences[0]}</p>' in page
    assert f'<p class="reasons">{" ".join(sentences[1:])}</p>' in page
    advice = " ".join(sentences)
    assert advice in (layout.report / "report.md").read_text()
    assert "| minilm | 90.0% | 0.0% | 25.0% |" in (layout.report / "report.md").read_text()
    assert advice in capsys.readouterr().out
    toy.run("publish", toy.PARAMS, layout.root)
    assert advice in (layout.release / "README.md").read_text()


def test_an_image_that_cannot_be_decoded_is_left_out() -> None:
    table = pa.table({"item_id": pa.array([0, 1], pa.int32()), "image": pa.array([b"no jpeg", toy.jpeg((1, 2, 3))])})
    assert list(gallery.make_thumbnails([table], {0, 1})) == [1]


def test_the_map_has_the_pictures_of_similar_items_close_together_and_is_the_same_twice(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    groups = np.array([[1, 0], [1, 0.1], [1, 0.2], [-1, 0.1], [-1, 0], [-1, 0.2]], np.float32)
    toy.write_features(layout, "beit3", groups)
    drawn = item_map.draw_map(Outputs(layout, "sample", "beit3"), 3)
    pixels = np.asarray(decoded(drawn), float)
    at = {}
    for item, colour in enumerate(toy.COLOURS):
        if colour:
            rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) < 12)
            at[item] = np.array([rows.mean(), columns.mean()])
    gaps = {(a, b): np.linalg.norm(at[a] - at[b]) for a in at for b in at if a < b}
    within = [gap for (a, b), gap in gaps.items() if (a < 3) == (b < 3)]
    assert max(within) < min(gap for pair, gap in gaps.items() if gap not in within)
    assert item_map.draw_map(Outputs(layout, "sample", "beit3"), 3) == drawn


@pytest.mark.parametrize("vectors", [np.ones((6, 1)), np.ones((6, 2)), np.zeros((6, 2))])
def test_vectors_that_tell_no_items_apart_have_no_map(tmp_path: Path, vectors: np.ndarray) -> None:
    layout = toy.outputs(tmp_path)
    toy.write_features(layout, "beit3", vectors.astype(np.float32))
    assert item_map.draw_map(Outputs(layout, "sample", "beit3"), 3) == ""


@pytest.mark.parametrize("items", [0, 1])
def test_a_shop_of_no_or_one_item_has_a_page(tmp_path: Path, items: int) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("probe", "benchmark", "study", "train", "pretrain"):
        shutil.rmtree(layout.folder(stage))
    tables = [(layout.items, schemas.ITEMS), (io.shard(layout.images, "images", 0), schemas.IMAGES)]
    tables += [(layout.edges(name), schemas.EDGES) for name in toy.SETS]
    for path, schema in tables:
        io.write_table(io.read_table(path, schema).slice(0, items), path, schema)
    bought = io.read_table(layout.interactions, schemas.INTERACTIONS)
    io.write_table(bought.filter(pc.less(bought["item_id"], items)), layout.interactions, schemas.INTERACTIONS)
    page = reported(layout)
    assert Tags(page).open == []
    assert ("red apple" in page) == bool(items)
