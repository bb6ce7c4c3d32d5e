"""Cleaning, composing and merging, with every line and item accounted for; and the texts, read in parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.dataset import items as build
from alignrec.pipeline.dataset.items import compose_text, find_shared
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.dataset.products import clean_text
from alignrec.pipeline.io import read_json
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import Product


def test_records_name_the_key_for_further_items_only_where_it_is_set() -> None:
    default = Items()
    assert default.facts() == {"max_reject_share": default.max_reject_share, "text": default.text}
    assert Items(all=True).facts() == default.facts() | {"all": True}


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("<b>bold</b>er", "bold er"),
        ("a &amp;lt;br&amp;gt; b &amp;amp; c", "a b & c"),
        ("5 < 6 > 4 <3", "5 < 6 > 4 <3"),
        ("x<script>alert('1')</script>y<!-- z -->", "x y"),
        ("x<style>p {color: red", "x"),
        ("a\x00\t\u200b\ufeff\n  b\u2028c", "a b c"),
        ("e\u0301", "\u00e9"),
        ("\ud800x", "x"),
        ("<p class='a'>one</p><p>two<br/>", "one two"),
        ("1 &#0; 2 &#xD800; 3", "1 2 3"),
        ("", ""),
        ('<span class="a-size-medium a-color-secondary".', ""),
        ('<span class="a-size-medium a-color-secondary"', ""),
        ("<span class=a", "<span class=a"),  # not surely a tag
        ('The Wire <span class="a-size-med', "The Wire"),
        ("<a href=\"x\" class='y' Good Housekeeping", "Good Housekeeping"),
        ("</p", ""),
        ("one</", "one"),
        ("a<br", "a"),
        ("a<br /", "a"),
        ('a<p class="b">c</p', "a c"),
        (' Magazines" />', "Magazines"),
        ('class="nav" alt="Magazines"/>', ""),
        ("&lt;span class=&quot;x&quot;", ""),
        ("a <brand new> b", "a b"),
        ("x <y and z", "x <y and z"),
        ("if a <b then", "if a <b then"),
        ("sides > 3\" and < 5'", "sides > 3\" and < 5'"),
        ("5'> 3'", "5'> 3'"),
        ("->", "->"),
        ("...", "..."),
        ('E = "mc"', 'E = "mc"'),
    ],
)
def test_clean(raw: str, plain: str) -> None:
    assert clean_text(raw) == plain


@given(st.text(alphabet=st.sampled_from("<>/!-&;#abpx \n\ud800\u0301amltgquo"), max_size=60))
def test_clean_text_is_valid_single_spaced_and_stays_clean(raw: str) -> None:
    once = clean_text(raw)
    once.encode()
    assert once == " ".join(once.split())
    assert "<script" not in once.lower()


def test_text_is_composed_of_the_fields_that_are_there_and_wanted() -> None:
    product = Product("Hat!", "Acme", ["A", "A", "B"], "Warm.", [], {})
    assert compose_text(product) == "Hat! Acme. A > B. Warm."
    assert compose_text(Product("", "", [], "Warm", [], {})) == "Warm."
    assert compose_text(product, ["description", "title"]) == "Warm. Hat!"
    lines = [orjson.dumps({"asin": "A", "title": "Hat", "category": ["Clothes"], "brand": "Acme"})]
    found = build.read_metadata(lines, SOURCE, ["A"], "m", max_reject_share=1)
    (items,) = build.item_tables(found.products, ["A"], ["title", "brand", "description"])
    assert items["text"].to_pylist() == ["Hat. Acme."]
    assert items["categories"].to_pylist() == [["Clothes"]]  # kept as a label


SOURCE = AmazonSource(kind="amazon2018", reviews="r", metadata="m")


class Made(NamedTuple):
    """The result of a metadata file."""

    items: pa.Table
    rejects: pa.Table
    lines: int
    drops: dict[str, int]


def made(
    *records: object, asins: Sequence[str] = ("A", "B"), share: float = 0.5, workers: int | None = None, kind: str = ""
) -> Made:
    lines = [r if isinstance(r, bytes) else orjson.dumps(r) for r in records]
    source = SOURCE.model_copy(update={"kind": kind}) if kind else SOURCE
    found = build.read_metadata(lines, source, asins, "meta.json.gz", share, workers)
    tables = list(build.item_tables(found.products, asins))
    assert all(len(table) <= io.PART for table in tables)
    return Made(pa.concat_tables(tables), found.rejects, found.lines, found.drops)


def test_every_item_has_a_row_and_every_line_is_accounted_for() -> None:
    actual = made(
        {"asin": "B", "imageURL": ["//e/x.jpg ", " my images/a &amp; b.png\n", "//e/x y.jpg", "https://e/?a&amp;b "]},
        {"asin": "X"},
        b"\n",
        b'{"asin": "A", ',
        {"title": "who?"},
        {"asin": "A", "title": "t"},
        asins=["A", "B", "C"],
    )
    assert actual.items["text_status"].to_pylist() == ["ok", "empty", "no_metadata"]
    assert actual.items["text"].to_pylist() == ["t.", "", ""]
    assert actual.items["tokens"].to_pylist() == [1, 0, 0]
    assert actual.items["extra"].to_pylist() == ["{}"] * 3
    urls = ["https://e/x.jpg", "my images/a &amp; b.png", "https://e/xy.jpg", "https://e/?a&b"]  # paths keep theirs
    assert actual.items["image_urls"].to_pylist() == [[], urls, []]
    assert actual.rejects.to_pylist() == [
        {"file": "meta.json.gz", "line": 4, "reason": "not JSON", "raw": b'{"asin": "A", '},
        {"file": "meta.json.gz", "line": 5, "reason": "no item identifier", "raw": b'{"title":"who?"}'},
    ]
    used = {"A", "B"}
    lines = actual.drops["other_item"] + actual.drops["blank_line"] + actual.drops["unreadable_line"] + len(used)
    assert (lines, actual.lines) == (6, 6)
    schemas.check(actual.items, schemas.ITEMS)
    schemas.check(actual.rejects, schemas.REJECTS)


def test_lines_of_one_item_are_merged_field_by_field_first_wins() -> None:
    actual = made(
        {"asin": "A", "title": "first", "imageURL": ["http://e/1"], "price": "$2", "rank": []},
        {
            "asin": "A",
            "title": "second",
            "price": "$3",
            "rank": [5],
            "brand": "late",
            "imageURL": ["http://e/2", "http://e/1"],
        },
    )
    row = actual.items.to_pylist()[0]
    assert (row["title"], row["brand"], row["image_urls"]) == ("first", "late", ["http://e/1", "http://e/2"])
    assert orjson.loads(row["extra"]) == {"price": "$2", "rank": [5]}
    assert actual.drops["merged_duplicate"] == 1


def test_nested_lists_are_flattened_and_objects_are_left_out_and_counted() -> None:
    actual = made(
        {"asin": "A", "category": [["Toys", ["Cars"]], "Red"], "description": [["x"], "y"], "title": "t"},
        {"asin": "B", "category": [{"name": "Toys"}, "Cars"], "description": {"en": "x"}, "title": "t"},
        {"asin": "C", "category": {"a": "b"}, "title": [[]]},
        asins=["A", "B", "C"],
    )
    assert actual.items["categories"].to_pylist() == [["Toys", "Cars", "Red"], ["Cars"], []]
    assert actual.items["description"].to_pylist() == ["x y", "", ""]
    assert (actual.drops["object_in_categories"], actual.drops["object_in_description"]) == (2, 1)
    assert "object_in_title" not in actual.drops


def test_too_many_unreadable_lines_fail_with_the_reasons() -> None:
    with pytest.raises(UserError, match=r"meta\.json\.gz: 3 of 4 .*not JSON \(2x\)"):
        made(b"x", b"y", b"[1]", {"asin": "A"})


def test_a_title_of_many_items_is_reported_and_an_empty_one_is_not(tmp_path: Path) -> None:
    asins = [f"A{i}" for i in range(20)]
    titles = ["Untitled"] * 3 + ["Twice"] * 2 + [f"t{i}" for i in range(11)]  # four items have none
    records = [{"asin": asin, "title": title, "brand": asin} for asin, title in zip(asins, titles, strict=False)]
    table, lone = tmp_path / "items.parquet", tmp_path / "lone.parquet"
    io.write_table(made(*records, asins=asins).items, table, schemas.ITEMS, {})
    assert find_shared(table, 0.1) == [{"column": "title", "value": "Untitled", "items": 3}]  # 2 are a tenth, not more
    assert find_shared(table, 0.15) == []
    io.write_table(made({"asin": "A", "title": "t"}).items, lone, schemas.ITEMS, {})
    assert find_shared(lone, 0.1) == []  # half of two items, and nothing is shared


def stages(folder: Path, records: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    """Run the stages up to items on six users who bought all of some items; return the notes of its record."""
    interactions, metadata, n = folder / "bought.csv", folder / "items.jsonl", len(records)
    interactions.write_text("user,item\n" + "".join(f"u{u},i{i}\n" for u in range(6) for i in range(n)))
    metadata.write_bytes(b"".join(orjson.dumps({"item": f"i{i}"} | row) + b"\n" for i, row in enumerate(records)))
    source = {"kind": "tabular", "interactions": str(interactions), "items": str(metadata)} | more
    params = Params.model_validate({"datasets": ["mine"], "sources": {"mine": source}, "benchmark": {"ks": [1]}})
    for stage in ("download", "interactions", "items"):
        toy.run(stage, params, folder, "mine")
    notes: dict[str, Any] = read_json(folder / "items" / "mine" / "run.json")["notes"]
    return notes


def test_the_stage_warns_of_a_placeholder_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = stages(tmp_path, [{"title": "<b>No title"}] * 6)
    both = [{"column": c, "value": v, "items": 6} for c, v in (("title", "No title"), ("text", "No title."))]
    assert notes["shared"] == both
    assert len(notes["warnings"]) == 1
    assert capsys.readouterr().err == (
        "warning: items mine: 6 of 6 items have the title 'No title'; it may be a placeholder; "
        f"{tmp_path / 'items' / 'mine' / 'run.json'} lists all 2 such values\n"
    )


def test_the_stage_warns_of_text_that_is_not_read(tmp_path: Path) -> None:
    rows = [{"title": f"film {i}", "review": f"a fine film {i}"} for i in range(60)]
    (unread,) = stages(tmp_path, rows)["warnings"]
    assert unread.endswith("left out: review 67%; sources.mine.text joins columns to the text")
    assert "warnings" not in stages(tmp_path, rows, text=["review"])


LINE = st.one_of(
    st.sampled_from([b"\n", b"", b"{'asin': 'A', 'title': 't'}\n", b'{"asin": "B", "price": 1}\n', b"{'asin': 'X'}\n"]),
    st.binary(max_size=30),
    st.text(alphabet="{}[]()'\":, asinAB0\\\n-", max_size=40).map(str.encode),
)


@pytest.mark.parametrize("kind", ["amazon2014", "amazon2018"])
@given(lines=st.lists(LINE, max_size=12))
def test_every_line_of_any_file_is_accounted_for(kind: str, lines: list[bytes]) -> None:
    actual = made(*lines, share=1, kind=kind)
    described = 2 - actual.items["text_status"].to_pylist().count("no_metadata")
    unused = sum(actual.drops.get(reason, 0) for reason in ("other_item", "blank_line", "merged_duplicate"))
    assert described + unused + len(actual.rejects) == actual.lines == len(lines)
    assert [lines[n - 1] for n in actual.rejects["line"].to_pylist()] == actual.rejects["raw"].to_pylist()


def test_two_processes_say_what_one_says() -> None:
    asins = [f"A{i}" for i in range(0, 9000, 2)]
    lines = [b"broken" if i % 100 == 7 else {"asin": f"A{i % 8000}", "title": f"t{i}", "n": i} for i in range(9000)]
    one, two = (made(*lines, asins=asins, workers=n) for n in (1, 2))
    assert one == two
    assert one.rejects["line"].to_pylist() == list(range(8, 9001, 100))
    assert one.items["title"].to_pylist()[:2] == ["t0", "t2"]


# --- texts are read in parts and equal those of the table


def test_they_are_those_of_the_table_in_order(tmp_path: Path) -> None:
    found = build.Products(10, tmp_path, part=4)
    for item in (7, 0, 9, 3):
        found.add(item, Product(f"title {item}", "", [], "", [], {}))
    path = tmp_path / "items.parquet"
    io.write_tables(build.item_tables(found, [f"A{i}" for i in range(10)]), path, schemas.ITEMS, {})
    whole = io.read_table(path, schemas.ITEMS, ["text"])["text"]
    texts = io.Texts(path)
    assert [*texts] == whole.to_pylist()
    assert (len(texts), whole[7].as_py()) == (10, "title 7.")
    assert texts.slice(3, 6).equals(pa.chunked_array(whole.slice(3, 6)))
    assert texts.slice(8, 9).to_pylist() == ["", "title 9."]
    with pytest.raises(UserError, match="absent"):
        io.Texts(tmp_path / "absent.parquet")
