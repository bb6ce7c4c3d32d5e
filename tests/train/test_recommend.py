"""One user's recommendations: masked, titled, and honest about users whom nobody knows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import toy
from typer.testing import CliRunner

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.train import embeddings, recommend
from stages.cli import app


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The toy shop; user 3 has no train items."""
    layout = toy.outputs(tmp_path_factory.mktemp("shop"))
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    io.write_table(table.filter(pc.field("user_id") != 3), layout.interactions, schemas.INTERACTIONS)
    return layout


def test_a_user_gets_the_best_items_that_are_not_in_train(layout: Layout) -> None:
    recommended = recommend.recommend(layout, "U1", 4)
    user, item = (vectors.read() for vectors in embeddings.of(layout))
    assert [i.item_id for i in recommended.trained] == [2, 1]
    expected = [i for i in np.argsort(-item @ user[1]) if i not in (1, 2)]
    assert [i.item_id for i in recommended.top] == expected
    assert [i.score for i in recommended.top] == pytest.approx([float(item[i] @ user[1]) for i in expected])
    by_id = {i.item_id: i for i in recommended.top}
    assert by_id[3].title == toy.TITLES[3]
    assert by_id[3].image == "https://p/3.jpg"
    assert by_id[4].image == ""  # it has none
    assert by_id[0].image == "/somewhere/on/this/machine.png"


def test_a_path_starts_where_the_images_were_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "shop")
    io.write_json(layout.cost("images"), {"measured": {"folder": "data"}})
    places = {
        "images/a b.png": "data/images/a b.png",
        "file:///x/a%20b.png": "/x/a b.png",
        "https://e/1": "https://e/1",
    }
    assert [recommend.local_address(layout, address) for address in places] == list(places.values())


def test_the_catalogue_runs_out_before_k(layout: Layout) -> None:
    assert len(recommend.recommend(layout, "U1", 6).top) == 4
    with pytest.raises(UserError, match="7 items wanted, and the catalogue has 6"):
        recommend.recommend(layout, "U1", 7)


def test_a_number_in_text_is_an_identifier_and_a_row_is_asked_for_as_such() -> None:
    names = pa.chunked_array([["2", "0", "ABC"]])
    assert recommend.find(names, "2") == 0
    assert recommend.find(names, 2) == 2
    with pytest.raises(UserError, match=r"'1'; row 1 is user '0'; .*--row 1"):
        recommend.find(names, "1")
    for name in ("3", "-1", "1.0", "", "9" * 5000):
        with pytest.raises(UserError, match=r"rows 0 \.\. 2, .*--row"):
            recommend.find(names, name)
    for row in (3, -1):
        with pytest.raises(UserError, match=rf"no row {row}; users are in rows 0 \.\. 2"):
            recommend.find(names, row)
    with pytest.raises(UserError, match=r"'ABD'.*'ABC'"):
        recommend.find(names, "ABD")


def test_a_user_without_train_items_gets_what_is_popular_and_is_told(layout: Layout) -> None:
    recommended = recommend.recommend(layout, 3, 2)
    assert recommended.popular
    assert [i.item_id for i in recommended.top] == [1, 2]  # two users each; 0 and 3 have one
    assert [i.score for i in recommended.top] == [None, None]
    assert "no train items" in recommend.history(recommended)


def test_vectors_of_another_dataset_are_refused(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    short = io.read_table(layout.item_embeddings, schemas.item_embeddings(3)).slice(0, 5)
    io.write_table(short, layout.item_embeddings, schemas.item_embeddings(3))
    with pytest.raises(UserError, match=r"4 users and 5 items, .*4 and 6; .*`alignrec train shop`"):
        recommend.recommend(layout, "U1", 2)
    layout.item_embeddings.unlink()
    with pytest.raises(UserError, match="run `alignrec train shop` first"):
        recommend.recommend(layout, "U1", 2)


def test_the_command_shows_titles_as_text_and_needs_no_torch(layout: Layout) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "stages.cli", "recommend", "shop", "--user", "U0", "--k", "4"]
    done = subprocess.run([*command, "--root", layout.root], capture_output=True, text=True, check=True)
    assert "<script>" in done.stdout
    assert "user U0 (row 0) has 2 train items: red ball, red apple" in done.stdout
    assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (["--user", "U1"], 0, "user U1 (row 1) has 2 train items"),
        (["--row", "1"], 0, "user U1 (row 1) has 2 train items"),
        (["--user", "1"], 1, "error: no user '1'; row 1 is user 'U1'; did you mean --row 1?"),
        (["--user", "U1", "--row", "1"], 2, "give either --user, an identifier, or --row"),
        ([], 2, "give either --user, an identifier, or --row"),
    ],
)
def test_the_command_takes_an_identifier_or_a_row(layout: Layout, asked: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(app, ["recommend", "shop", *asked, "--k", "4", "--root", str(layout.root)])
    assert done.exit_code == code
    assert said in " ".join(done.output.replace("│", " ").split())
