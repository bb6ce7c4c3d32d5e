"""`alignrec new`: columns that it detects or refuses to guess, and a parameter file that runs unchanged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from alignrec.commands import new as command
from alignrec.commands.own_data import Given
from alignrec.commands.params import load
from alignrec.commands.size import read_size
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout


def shop(folder: Path, users: int = 30, items: int = 60, each: int = 12) -> None:
    """Write interactions and items with common column names: movies, each rated 1 to 5."""
    bought = [(u, n) for u in range(users) for n in range(each)]
    rows = [(f"u{u}", (2 * u + n) % items, 1 + (u + n) % 5, f"2020-01-{1 + n:02d}") for u, n in bought]
    pd.DataFrame(rows, columns=["userId", "movieId", "stars", "date"]).to_csv(folder / "ratings.csv", index=False)
    lines = [{"id": i, "name": f"movie {i}", "genres": ["a"], "plot": "x", "poster": f"{i}.jpg"} for i in range(items)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))


PARAMS = Path("params.yaml")


def new(
    *columns: str,
    images: str | None = None,
    items: str | None = "items.jsonl",
    force: bool = True,
    interactions: str = "ratings.csv",
    beit3: bool = False,
    interactions_only: bool = False,
) -> list[str]:
    command.check_target("mine", PARAMS, force)
    path = Path(items) if items else None
    given = Given("mine", Path(interactions), path, images, columns, interactions_only)
    text, seen = command.describe_files(given, beit3)
    return [*seen, *command.write_project("mine", text, PARAMS)]


def written(section: str) -> Any:
    return yaml.safe_load(PARAMS.read_text())[section]


@pytest.fixture(autouse=True)
def _here(with_dvc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "has_gpu", lambda: False)
    shop(tmp_path)


def test_columns_are_known_by_their_names() -> None:
    seen = new()
    source = written("sources")["mine"]
    assert source == {
        "kind": "tabular",
        "interactions": "ratings.csv",
        "items": "items.jsonl",
        "columns": {
            "user": "userId", "item": "movieId", "rating": "stars", "timestamp": "date", "title": "name",
            "categories": "genres", "description": "plot", "image_urls": "poster",
        },
        "item_columns": {"item": "id"},
    }  # fmt: skip
    assert "  user        userId, such as 'u0'" in seen
    assert "a 5-core leaves 30 users, 60 items, 360 interactions" in seen
    assert seen[-1].startswith("next: dvc repro")
    assert (load(PARAMS).datasets, load(PARAMS).interactions.protocol) == (["mine"], "user-time")
    assert [line for line in seen if line.startswith("timestamps found: split user-time, ")]


def test_without_timestamps_the_split_is_random_and_few_items_are_doubted() -> None:
    pd.read_csv("ratings.csv").drop(columns="date").to_csv("ratings.csv", index=False)
    seen = new("item=stars", items=None, interactions_only=True)
    assert load(PARAMS).interactions.protocol == "mmrec"
    doubted = "warning: only 5 items: does 'stars' hold items? If not, name it: --column item=NAME"
    assert [line for line in seen if "warning" in line] == [doubted]


def test_two_columns_that_fit_are_not_guessed_between() -> None:
    frame = pd.read_csv("ratings.csv").assign(sku="x")
    frame.to_csv("ratings.csv", index=False)
    with pytest.raises(UserError, match=r"movieId or sku; .*--column item=movieId"):
        new()
    new("item=movieId", items=None, interactions_only=True)
    with pytest.raises(UserError, match=r"'--column item': .*'movieid'.*'movieId'"):
        new("item=movieid")
    with pytest.raises(UserError, match=r"'--column': .*'itm'.*'item'"):
        new("itm=sku")


def test_what_is_not_there_is_not_encoded() -> None:
    new(items=None, interactions_only=True)
    params = load(PARAMS, "mine")
    assert (params.encode.encoders, params.train.features, params.publish.features) == ([], "random", ["random"])
    lines = [json.loads(line) for line in Path("items.jsonl").read_text().splitlines()]
    Path("items.jsonl").write_text("\n".join(json.dumps({"id": line["id"], "name": "x"}) for line in lines))
    new()
    made = load(PARAMS)
    assert (made.encode.encoders, made.beit3.sets, [*made.combine.sets]) == (["minilm", "tfidf"], [], ["linear"])


def test_without_a_gpu_linear_is_what_is_judged_trained_and_released_first() -> None:
    seen = new()
    params = load(PARAMS, "mine")
    assert params.encode.encoders == ["minilm", "cnn", "descriptors", "tfidf"]
    assert (params.beit3.sets, [*params.combine.sets]) == ([], ["linear"])
    assert (params.train.features, params.semantic_ids.features) == ("linear", ["linear"])
    assert params.benchmark.features == ["linear", "tfidf", "shuffled"]
    assert params.publish.features == ["linear", *params.encode.encoders]
    assert seen.count("BEiT3 is left out, as there is no GPU; --beit3 pre-trains it") == 1


def test_vectors_are_reused_when_the_catalogue_grows() -> None:
    new()
    assert load(PARAMS, "mine").encode.reuse
    text, _ = command.describe_category("mine", "2014", "Baby")
    assert yaml.safe_load(text)["encode"]["reuse"] is True
    assert not Encode().reuse  # files without the key keep their bytes


@pytest.mark.parametrize("how", ["a GPU", "--beit3"])
def test_beit3_is_written_with_a_gpu_or_where_it_is_asked_for(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "has_gpu", lambda: how == "a GPU")
    seen = new(beit3=how == "--beit3")
    params = load(PARAMS, "mine")
    assert (params.beit3.sets[0], params.pretrain.steps, params.train.features) == ("beit3", 400, "beit3")
    assert params.pretrain.patience == 3
    assert params.benchmark.features == ["beit3", "linear", "tfidf", "shuffled"]
    said = "BEiT3 is pre-trained for at most 400 steps, fewer if its held-out losses stop falling"
    assert [line for line in seen if "BEiT3" in line] == [said] * (how == "--beit3")


def test_images_are_a_folder_or_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for given, section in (("pictures", {"folder": "pictures"}), ("a/{item}.jpg", {"pattern": "a/{item}.jpg"})):
        new(images=given)
        assert written("images") == section
    with pytest.raises(UserError, match=r"--images pictres: no such folder"):
        new(images="pictres")
    with pytest.raises(UserError, match=r"unknown field; write \{item\}"):
        new(images="a/{sku}.jpg")


def pictured(folder: Path, path: str, there: str, files: int = 60) -> None:
    """Write items with paths such as `covers/{}.jpg`, the last with none, and the files below the folder."""
    lines = [json.loads(line) for line in Path("items.jsonl").read_text().splitlines()]
    lines = [line | {"poster": path.format(line["id"])} for line in lines[:-1]] + [lines[-1] | {"poster": ""}]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for i in range(files):
        (folder / there.format(i)).parent.mkdir(parents=True, exist_ok=True)
        (folder / there.format(i)).write_bytes(b"")


STARTS = {
    "the folder": ("{}.jpg", "covers/{}.jpg", "covers", {"folder": "covers"}),
    "the item file's": ("covers/{}.jpg", "covers/{}.jpg", "covers", {"folder": "covers"}),
    "its parent": ("c/{}.jpg", "far/c/{}.jpg", "far/c", {"folder": "far/c"}),
    "none": ("x/{}.jpg", "far/c/{}.jpg", "far/c", {"folder": "far/c"}),
}


@pytest.mark.parametrize(("path", "there", "given", "section"), STARTS.values(), ids=STARTS)
def test_paths_start_where_files_are(
    tmp_path: Path, path: str, there: str, given: str, section: dict[str, str]
) -> None:
    pictured(tmp_path, path, there)
    new(images=given)
    assert written("images") == section


def test_numbered_images_of_an_item_are_all_found(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in Path("items.jsonl").read_text().splitlines()]
    names = [{"id": line["id"], "name": "x"} for line in lines[:-1]] + [{"id": "5_3", "name": "x"}]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, names)))
    (tmp_path / "covers").mkdir()
    for name in ("0_1.jpg", "0_2.jpg", "1_1.png", "5_3.jpg"):
        (tmp_path / "covers" / name).write_bytes(b"")
    assert "3 of 60 items have a picture below covers" in "".join(new(images="covers"))
    patterns = ["{item}.jpg", "{item}.png", "{item}_1.jpg", "{item}_1.png", "{item}_2.jpg", "{item}_2.png"]
    assert written("images") == {"folder": "covers", "pattern": patterns}
    load(PARAMS)


def test_a_project_without_text_and_image_is_an_explicit_choice(tmp_path: Path) -> None:
    remedies = "give --items FILE .* or --images FOLDER; --interactions-only does without"
    with pytest.raises(UserError, match=rf"ratings\.csv: interactions and no items; {remedies}"):
        new(items=None)

    Path("items.jsonl").write_text("".join(f'{{"id": {i}, "farbe": "rot"}}\n' for i in range(60)))
    with pytest.raises(UserError, match=r"no text or image in farbe; .*--column title=NAME") as e:
        new()
    assert "\n" not in str(e.value)
    (tmp_path / "covers").mkdir()
    with pytest.raises(UserError, match="no text or image in farbe"):
        new(images="covers")
    assert not PARAMS.exists()

    new("title=farbe")
    assert load(PARAMS, "mine").encode.encoders == ["minilm", "tfidf"]


@pytest.mark.parametrize("items", [None, "items.jsonl"])
def test_images_named_after_items_suffice(tmp_path: Path, items: str | None) -> None:
    Path("items.jsonl").write_text("".join(f'{{"id": {i}}}\n' for i in range(60)))
    (tmp_path / "covers").mkdir()
    for i in range(7):
        (tmp_path / f"covers/{i}.jpg").write_bytes(b"")
    assert "7 of 60 items have a picture below covers" in new(items=items, images="covers")
    params = load(PARAMS, "mine")
    assert params.encode.encoders == ["cnn", "descriptors"]
    assert "items" not in written("sources")["mine"]
    assert read_size(params, Layout(Path("outputs"), "mine")).pieces


PICTURED = {
    "paths in a column": ("{}.jpg", "covers", 52, "51 of 60 items have a picture below covers"),
    "a pattern": ("", "covers/{item}.jpg", 52, "52 of 60 items have a picture below covers"),
    "a zip archive": ("{}.jpg", "covers.zip", 52, "51 of 60 items have a picture below covers.zip"),
    "no file": ("{}.jpg", "covers", 0, "warning: none of 60 items has a picture below covers"),
}


@pytest.mark.parametrize(("path", "images", "files", "said"), PICTURED.values(), ids=PICTURED)
def test_items_with_a_picture_are_counted(
    tmp_path: Path,
    path: str,
    images: str,
    files: int,
    said: str,
) -> None:
    (tmp_path / "covers").mkdir()
    pictured(tmp_path, path, "covers/{}.jpg", files)
    lines = Path("items.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"0.jpg"', '""')
    Path("items.jsonl").write_text("\n".join(lines))
    shutil.make_archive("covers", "zip", "covers")
    assert [line for line in new(images=images) if line.startswith(said)]


ABROAD = {
    "German": "Kundennummer Artikelnummer Bewertung Datum Titel Beschreibung Marke Kategorie Bild",
    "German, abbreviated": "Kundennr Artikelnr Bewertung Datum Titel Beschreibung Marke Kategorie Bild",
    "French": "utilisateur produit évaluation horodatage titre résumé marque catégorie photo",
    "Spanish": "usuario producto puntuación fecha título descripción marca categoría imagen",
    "Chinese": "用户ID 商品编号 评分 时间戳 标题 描述 品牌 类别 图片",
    "Japanese": "ユーザーID 商品ID 評価 日時 商品名 商品説明 ブランド カテゴリー 画像URL",
}


@pytest.mark.parametrize("names", ABROAD.values(), ids=ABROAD)
def test_columns_are_known_in_five_more_languages(names: str) -> None:
    user, item, rating, timestamp, title, description, brand, categories, image = names.split()
    frame = pd.read_csv("ratings.csv").set_axis([user, item, rating, timestamp], axis="columns")
    frame.to_csv("ratings.csv", index=False)
    row = {title: "a", description: "b", brand: "c", categories: "d", image: "e.jpg", "Preis": 1}
    lines = [json.dumps({item: i} | row, ensure_ascii=False) for i in range(60)]
    Path("items.jsonl").write_text("\n".join(lines))
    seen = new()
    assert written("sources")["mine"]["columns"] == {
        "user": user, "item": item, "rating": rating, "timestamp": timestamp, "title": title,
        "description": description, "brand": brand, "categories": categories, "image_urls": image,
    }  # fmt: skip
    assert "items.jsonl: 7 columns; not used: Preis" in seen
    assert "a 5-core leaves 30 users, 60 items, 360 interactions" in seen


def test_english_names_come_before_translated_ones() -> None:
    pd.read_csv("ratings.csv").assign(client=1, fecha=2).to_csv("ratings.csv", index=False)
    new()
    assert written("sources")["mine"]["columns"]["user"] == "userId"
    frame = pd.read_csv("ratings.csv").rename(columns={"userId": "Kunde"})
    frame.to_csv("ratings.csv", index=False)
    with pytest.raises(UserError, match=r"may be Kunde or client; use --column user=Kunde"):
        new()


def test_bad_files_are_one_line_and_an_existing_file_is_kept() -> None:
    with pytest.raises(UserError, match=r"itms\.jsonl: no such file"):
        new(items="itms.jsonl")
    pd.read_csv("ratings.csv").assign(date="13/31/20").to_csv("ratings.csv", index=False)
    with pytest.raises(UserError, match="column 'date' holds '13/31/20'"):
        new()
    Path("ratings.csv").write_text("userId,movieId\n")
    with pytest.raises(UserError, match="no rows that can be read"):
        new()
    assert not PARAMS.exists()
    PARAMS.write_text("mine")
    with pytest.raises(UserError, match=r"params\.yaml: exists already"):
        new(force=False)
    assert PARAMS.read_text() == "mine"


TITLES = {
    "Chinese": "红色保温杯 Nike",
    "Japanese": "赤い水筒とスニーカー",
    "Korean": "빨간색 보온병",
    "Thai": "กระติกน้ำสีแดง",
    "Cyrillic": "красная бутылка",
    "": "Red bottle, rosé 红",
}


@pytest.mark.parametrize("language", TITLES)
def test_a_language_that_minilm_does_not_understand_is_named_with_an_encoder_that_does(language: str) -> None:
    lines = [{"id": i, "name": TITLES[language]} for i in range(60)]
    Path("items.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    said = [line for line in new() if "MiniLM" in line]
    assert len(said) == bool(language)
    for line in said:
        assert f"texts are in {language}, which" in line
        assert "paraphrase-multilingual-MiniLM-L12-v2" in line
