"""`alignrec embed` and `verify` on a shop's own file, whose columns have names of its own."""

import csv
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from shop import releases, toy

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import item_file, item_images, item_table
from alignrec.pipeline.release.item_table import Recipe, project_recipe
from alignrec.pipeline.release.manifest import ItemColumns

ITEMS, USERS, BOUGHT = 24, 30, 8
COLUMNS = ["artikelnr", "bezeichnung", "marke", "warengruppe", "beschreibung", "pflege", "brand"]
ROLES = {
    "item": "artikelnr",
    "title": "bezeichnung",
    "brand": "marke",
    "categories": "warengruppe",
    "description": "beschreibung",
}


def product(number: int) -> list[str]:
    """Return a row of COLUMNS, with markup, entities and spaces; `brand` is no role of the shop."""
    colour = ["Rote", "Blaue", "Grüne", "Gelbe"][number % 4]
    thing = ["Säge", "Zange", "Leiter", "Lampe", "Schraube", "Schaufel"][number % 6]
    description = f"Eine <b>{colour.lower()}</b> {thing} f&uuml;r Haus &amp; Hof,   geprüft"
    return [
        f"A-{number:02d}",
        f"{colour} {thing} {number}",
        ["Müller &amp; Söhne", "Werkzeug24", ""][number % 3],
        f"Werkzeug| {thing} |{colour}",
        description if number % 5 else "",
        "Trocken lagern" if number % 2 else "",
        "ja",
    ]


def as_options(columns: Iterable[str]) -> list[str]:
    """Return options that name the columns, in the order of ROLES."""
    return [f"--column={role}={column}" for role, column in zip(ROLES, columns, strict=True)]


def write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def made_shop(folder: Path) -> Path:
    """Run the stages that make `linear` from CSV files with German columns; return the folder."""
    write_rows(folder / "products.csv", [COLUMNS, *map(product, range(ITEMS))])
    sales = [["kunde", "artikelnr"]]
    for user, number in itertools.product(range(USERS), range(BOUGHT)):
        sales.append([f"k{user}", f"A-{(user + 3 * number) % ITEMS:02d}"])
    write_rows(folder / "sales.csv", sales)
    source = {
        "kind": "tabular",
        "interactions": str(folder / "sales.csv"),
        "items": str(folder / "products.csv"),
        "columns": {"user": "kunde"} | ROLES,
        "text": ["pflege"],
    }
    sections = {
        "datasets": ["shop"],
        "sources": {"shop": source},
        "items": {"text": ["brand", "title", "categories", "description"]},
        "encode": {"encoders": ["minilm", "tfidf"]},
        "combine": {"sets": {"linear": {}}, "controls": []},
        "beit3": {"sets": []},
        "benchmark": {"ks": [5, 20]},
        "probe": {"ks": [5, 20]},
        "publish": {"features": ["linear"]},
    }
    (folder / "params.yaml").write_text(json.dumps(sections))
    params = Params.model_validate(sections)
    for stage, item in (
        ("download", ""),
        ("interactions", ""),
        ("items", ""),
        ("encode", "minilm"),
        ("encode", "tfidf"),
        ("combine", ""),
        ("publish", ""),
    ):
        toy.run(stage, params, folder / "outputs", item=item)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def release(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the release, in an otherwise empty folder with the shop's file."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(made / "products.csv", "products.csv")
    return shutil.copytree(made / "outputs/publish/shop/release", Path("release"))


def lowest_cosine(folder: Path) -> float:
    """Return the lowest cosine of embedded items to their vectors in the release."""
    new, released = pq.read_table("v"), pq.read_table(folder / "features/linear")
    new, released = new.sort_by(new.column_names[0]), released.sort_by("asin")
    assert new[0].to_pylist() == released["asin"].to_pylist()

    x, y = io.matrix(new["vector"]), io.matrix(released["vector"])
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(1) / lengths).min())


def embed(release: Path, *args: object, file: str = "products.csv") -> tuple[float, list[str]]:
    """Embed a file of the shop; return the lowest cosine to the release, and the warnings."""
    shutil.rmtree("v", ignore_errors=True)
    where = ("--release", release, "--encoder", "linear", "--to", "v")
    result = alignrec("embed", file, *where, *args)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    return lowest_cosine(release), warnings


def test_a_dataset_that_is_not_declared_has_no_recipe(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    assert project_recipe(toy.params(), "shop", layout.items) is not None
    assert project_recipe(toy.params(), "other", layout.items) is None
    assert project_recipe(toy.params(), "shop", tmp_path / "absent") is None


def test_a_release_remembers_the_columns_of_the_shop(release: Path) -> None:
    columns = json.loads((release / "manifest.json").read_text())["columns"]
    assert columns == {"roles": ROLES, "text": ["pflege"]}
    lowest, warnings = embed(release)
    assert lowest > 1 - 1e-6
    assert warnings == []
    assert pq.read_table("v").column_names[0] == "artikelnr"


def test_other_names_are_given_by_role(release: Path) -> None:
    header = ["nr", "name", "hersteller", "gruppe", "lang", "pflege", "brand"]
    write_rows(Path("other.csv"), [header, *map(product, range(ITEMS))])
    named = as_options(header[: len(ROLES)])
    lowest, warnings = embed(release, *named, file="other.csv")
    assert lowest > 1 - 1e-6
    assert warnings == []


def test_columns_of_usual_names_need_no_option(release: Path) -> None:
    header = ["Artikelnummer", "Titel", "Hersteller", "Kategorie", "Produktbeschreibung", "pflege"]
    rows = [product(number)[: len(header)] for number in range(ITEMS)]
    write_rows(Path("usual.csv"), [header, *rows])
    lowest, warnings = embed(release, file="usual.csv")
    assert lowest > 1 - 1e-6
    assert warnings == []

    tables = []
    for to, options in (("guessed", []), ("named", as_options(header[: len(ROLES)]))):
        result = alignrec("embed", "usual.csv", "--encoder", "minilm", "--to", to, *options)
        assert result.exit_code == 0, result.output
        pairs = [f"{role}={column}" for role, column in zip(ROLES, header, strict=False)]
        line = f"columns by their names: {', '.join(pairs)}; --column takes others\n"
        assert (line in result.output) == (not options)
        tables.append(pq.read_table(to))
    assert tables[0].equals(tables[1])
    assert all(tables[0]["has_text"].to_pylist())


def test_no_column_is_guessed_of_rows_that_a_source_reads_itself(tmp_path: Path) -> None:
    path = tmp_path / "meta.jsonl"
    path.write_text('{"asin": "a", "name": "b", "imUrl": "http://e/x.jpg", "images": []}\n')
    assert item_table.open_table(path, None, recipe=Recipe("amazon2018")).guessed == {}
    with pytest.raises(UserError, match="the image_urls may be imUrl or images"):
        item_table.open_table(path, None)


def test_two_columns_of_a_role_are_asked_about(release: Path) -> None:
    write_rows(Path("two.csv"), [["sku", "Titel", "Bezeichnung"], ["a", "Säge", "Eine Säge"]])
    result = alignrec("embed", "two.csv", "--encoder", "minilm", "--to", "v")
    assert result.exit_code == 1
    assert "the title may be Titel or Bezeichnung; use --column title=Titel" in result.output
    result = alignrec("embed", "two.csv", "--encoder", "minilm", "--to", "v", "--text", "Titel")
    assert result.exit_code == 0, result.output


def test_texts_that_are_made_otherwise_are_warned_about(release: Path) -> None:
    lowest, warnings = embed(release, "--text", "bezeichnung,warengruppe,beschreibung")
    assert lowest < 0.99
    assert warnings == [
        "warning: --text is not cleaned and composed like the encoder's texts (brand, title, "
        "categories, description); name columns by role, such as --column title=NAME"
    ]
    short = [[row[0], row[1], row[3]] for row in (COLUMNS, *map(product, range(ITEMS)))]
    write_rows(Path("short.csv"), short)
    lowest, warnings = embed(release, file="short.csv")
    assert lowest < 0.99
    assert warnings == [
        "warning: short.csv: no brand (column 'marke'), which the encoder's texts have; "
        "name its column by --column brand=NAME",
        "warning: short.csv: no description (column 'beschreibung'), which the encoder's texts "
        "have; name its column by --column description=NAME",
        "warning: short.csv: no column 'pflege', which the encoder's texts have",
    ]


def test_a_role_that_the_release_lacks_is_warned_about(release: Path) -> None:
    releases.edit(release, lambda manifest: manifest["columns"]["roles"].pop("brand"))
    _, warnings = embed(release, "--column", "brand=marke")
    assert warnings == ["warning: --column brand=marke: the encoder's texts have no brand"]


def test_items_of_the_release_are_read_under_its_names(release: Path) -> None:
    columns = ["asin", "title", "brand", "categories", "description", "text"]
    items = pq.read_table(release / "items.parquet", columns=columns)
    pq.write_table(items, "all.parquet")
    pq.write_table(items.select(["asin", "text"]), "texts.parquet")
    assert embed(release, file="all.parquet")[0] > 1 - 1e-6
    lowest, warnings = embed(release, file="texts.parquet")
    assert lowest > 1 - 1e-6
    assert warnings == []


def test_the_file_of_the_shop_attests_its_release(release: Path) -> None:
    result = alignrec("verify", release, "--data", "products.csv")
    assert result.exit_code == 0, result.output
    assert f"text, image and vector of {ITEMS} rows agree" in result.output


def test_a_set_of_a_project_reads_the_columns_of_the_project(made: Path, release: Path) -> None:
    where = ("--params", made / "params.yaml", "--root", made / "outputs")
    result = alignrec("embed", "products.csv", "--encoder", "linear", "--to", "v", *where)
    assert result.exit_code == 0, result.output
    assert lowest_cosine(release) > 1 - 1e-6


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (["--column", "titel=x"], "'--column': no 'titel'; did you mean 'title'?"),
        (["--column", "user=artikelnr"], "'--column': no 'user'"),
        (["--column", "title"], "--column title: write role=name, such as item=sku"),
        (["--column", "title=bezeichnun"], "no column 'bezeichnun'; did you mean 'bezeichnung'?"),
        (["--column", "title=marke", "--text", "marke"], "--text is the whole text, and --column"),
    ],
)
def test_a_mistake_in_a_column_is_one_line(release: Path, args: list[str], fault: str) -> None:
    where = ("--release", release, "--encoder", "linear", "--to", "v")
    result = alignrec("embed", "products.csv", *where, *args)
    assert result.exit_code == 1
    assert fault in result.output
    assert not Path("v").exists()


# --- sources whose readers join fields


def texts(path: Path, recipe: Recipe, **named: str) -> list[str]:
    table = item_table.open_table(path, None, named, recipe=recipe)
    return [row.text for rows, _ in item_file.read_blocks(table) for row in rows]


def test_metadata_of_amazon_is_read_by_its_reader(tmp_path: Path) -> None:
    roles = {"item": "asin", "title": "title", "categories": "categories"}
    recipe = Recipe("amazon2014", ItemColumns(roles=roles))
    line = "{'asin': 'B1', 'title': 'Red ball', 'categories': [['Toys'], ['Toys', 'Balls']]}\n"
    plain = {"asin": "B2", "title": "Red ball", "categories": ["Toys", "Balls"]}
    (tmp_path / "meta.json").write_text(line + json.dumps(plain) + "\n")
    assert texts(tmp_path / "meta.json", recipe) == ["Red ball. Toys > Balls."] * 2

    recipe = Recipe("amazon2023", ItemColumns(roles={"item": "parent_asin", "title": "title"}))
    new = {"parent_asin": "B3", "title": "Ball", "features": ["Round."], "description": ["Red."]}
    (tmp_path / "meta.jsonl").write_text(json.dumps(new | {"store": "Acme"}) + "\n")
    assert texts(tmp_path / "meta.jsonl", recipe) == ["Ball. Acme. Round. Red."]


def test_addresses_of_images_are_not_mistaken_for_files(tmp_path: Path) -> None:
    rows = [{"item": "a", "bild": "https://x.example/a.jpg"}, {"item": "b", "bild": "b.jpg|c.jpg"}]
    (tmp_path / "c.jpg").write_bytes(b"image")
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = item_table.open_table(path, tmp_path, {"image_urls": "bild"})
    ((first, second),) = (rows for rows, _ in item_file.read_blocks(table))
    assert first.image == item_images.FoundImage(None, "missing", "no file a.* among the images")
    assert second.image == item_images.FoundImage(tmp_path / "c.jpg", "ok")
