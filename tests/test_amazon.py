"""`alignrec new --amazon`: Amazon's data by name."""

from pathlib import Path

import pytest
from commands import alignrec

from pipeline.sources.amazon import AmazonSource
from stages.params import load

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "x", "--amazon", "2015"], "'--amazon': no '2015'"),
        (["new", "x", "--amazon", "2014", "--category", "Babi"], "no 'Babi'; did you mean 'Baby'?"),
        (["new", "x", "--amazon", "2014"], "give --category too, one of Amazon_Instant_Video"),
        (["new", "x"], "--interactions"),
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
