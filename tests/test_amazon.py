"""`alignrec categories` and `alignrec new --amazon`: Amazon's data by name."""

from pathlib import Path

import pytest
import yaml
from commands import alignrec

from pipeline.config import document
from pipeline.errors import UserError
from pipeline.sources import catalogue
from pipeline.sources.amazon import AmazonSource
from stages import amazon
from stages.params import load

ROOT = Path(__file__).parent.parent


def row_of(name: str, output: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(f"{name} "))


def test_categories_are_listed_with_what_is_published_of_them(tmp_path: Path) -> None:
    said = alignrec("categories", "--year", "2018", cwd=tmp_path)
    assert said.exit_code == 0, said.output
    assert row_of("Gift_Cards", said.output) == ["Gift_Cards", "1,548", "147,194"]
    assert "read in: the table of nijianmo" in said.output
    assert len(catalogue.vintages()["2023"]["categories"]) == 34


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["categories", "--category", "Softwar"], "no 'Softwar'; did you mean 'Software'?"),
        (["categories", "--year", "2015"], "'--amazon': no '2015'"),
        (["new", "x", "--amazon", "2014", "--category", "Babi"], "no 'Babi'; did you mean 'Baby'?"),
        (["new", "x", "--amazon", "2014"], "`alignrec categories --year 2014`"),
        (["new", "x"], "--interactions"),
        (["new", "x", "--amazon", "2014", "--category", "Baby", "--split", "none"], "*.inter*"),
    ],
)
def test_what_is_missing_or_misspelt_is_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    result = alignrec(*words, cwd=tmp_path)
    assert result.exit_code
    told = str(result.exception) if not isinstance(result.exception, SystemExit) else result.output
    assert said in " ".join(told.replace("│", " ").split())
    assert not (tmp_path / "params.yaml").exists()


def test_new_writes_a_project_for_a_category(tmp_path: Path) -> None:
    said = alignrec("new", "baby", "--amazon", "2014", "--category", "Baby", cwd=tmp_path)
    assert said.exit_code == 0, said.output
    assert "Baby of 2014: 19,445 users, 7,050 items, 160,792 interactions" in said.output
    params = load(tmp_path / "params.yaml", "baby")
    source = params.source("baby")
    assert isinstance(source, AmazonSource)
    assert (source.kind, source.category, source.subset) == ("amazon2014", "Baby", "5-core")
    assert (tmp_path / "dvc.yaml").is_file()
    assert params.pretrain.size == "mini"
    words = ("new", "s", "--amazon", "2023", "--category", "Software", "--subset", "all", "--to", "p.yaml")
    alignrec(*words, cwd=tmp_path)
    source = load(tmp_path / "p.yaml", "s").source("s")
    assert isinstance(source, AmazonSource)
    assert "0core" in source.files()["reviews"][0]


@pytest.mark.parametrize(
    ("category", "steps", "memory", "accumulate"),
    [("Baby", 1000, 80e9, 1), ("Electronics", 8900, 16e9, 4), ("Sports_and_Outdoors", 2600, 0, 1)],
)
def test_official_weights_are_the_articles_and_are_offered_where_a_gpu_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, category: str, steps: int, memory: float, accumulate: int
) -> None:
    monkeypatch.setattr(amazon, "gpu_memory", lambda: float(memory))
    words = ["new", "x", "--amazon", "2014", "--category", category, "--to", "p.yaml"]
    plain = alignrec(*words, cwd=tmp_path).output
    assert ("--official writes BEiT3-base" in plain) == (memory >= 12e9)
    said = alignrec(*words, "--official", "--force", cwd=tmp_path).output
    assert ("warning: no GPU here" in said) == (not memory)
    params = load(tmp_path / "p.yaml", "x")
    assert (params.pretrain.size, params.pretrain.steps, params.pretrain.accumulate) == ("base", steps, accumulate)
    assert params.train.features == params.benchmark.features[0] == "beit3-raw"
    assert "beit3-raw" in params.publish.features
    article = document.read_extended(ROOT / "profiles" / "baby.yaml")
    for section, keys in amazon.OFFICIAL.items():
        assert article[section] == keys, section


def test_a_published_split_is_found_in_its_folder(tmp_path: Path) -> None:
    for name in ("baby.inter.gz", "i_id_mapping.csv", "u_id_mapping.csv", "README.md"):
        (tmp_path / name).write_bytes(b"")
    files = {"interactions": "baby.inter.gz", "items": "i_id_mapping.csv", "users": "u_id_mapping.csv"}
    assert amazon.split_of(tmp_path) == {role: str(tmp_path / name) for role, name in files.items()}
    text, _ = amazon.look("baby", 2014, "Baby", "5-core", tmp_path, official=False)
    assert yaml.safe_load(text)["sources"]["baby"]["split"]["items"].endswith("i_id_mapping.csv")
    (tmp_path / "sports.inter").write_bytes(b"")
    with pytest.raises(UserError, match=r"baby\.inter\.gz.*sports\.inter"):
        amazon.split_of(tmp_path)
