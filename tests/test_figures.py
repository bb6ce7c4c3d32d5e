"""Blocks of figures in the docs name the network that they were made from, and no page mixes two."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from shop import toy

from alignrec.pipeline import io
from alignrec.pipeline.report import figures
from alignrec.pipeline.report.figures import SAMPLE, name_network, recorded_figures, sample_network
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from benchmarks import _figures, _networks

ROOT = Path(__file__).parent.parent
TABLE = Table("", "Three seeds.", ("features", "recall"), [("beit3", "0.2")])


def page(*blocks: str, body: str = "") -> str:
    return "\n".join(f"<!-- figures: {block} -->\n{body}<!-- /figures -->\n" for block in blocks)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A reported run whose metrics git keeps, as after `dvc repro`."""
    layout = toy.outputs(tmp_path / "outputs")
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    kept(layout, "metrics", io.read_json(layout.figures("metrics")))
    return layout


def kept(layout: Layout, name: str, content: object) -> None:
    io.write_json(layout.root / "figures" / layout.dataset / f"{name}.json", content)


def experiment(layout: Layout, name: str, network: str) -> None:
    path = layout.root / "figures" / layout.dataset / f"article-{name}.json"
    figures.write_tables(path, [TABLE], network)


def test_another_processors_rounding_is_the_same_network_and_another_seed_is_not(layout: Layout) -> None:
    rng = np.random.default_rng(0)
    vectors = io.matrix(io.read_features(layout.features("beit3"))["vector"])
    recorded = sample_network(layout)
    assert (recorded.dtype, recorded.shape) == (np.float16, (64, vectors.shape[1]))
    io.write_npy(recorded_figures(layout) / SAMPLE, recorded)

    toy.write_features(layout, "beit3", vectors + 1e-4 * rng.standard_normal(vectors.shape, np.float32))
    assert np.array_equal(sample_network(layout), recorded)
    toy.write_features(layout, "beit3", rng.standard_normal(vectors.shape, np.float32))
    assert name_network(sample_network(layout)) not in ("", name_network(recorded))
    toy.write_features(layout, "beit3", vectors[:, :-1])
    assert name_network(sample_network(layout)) not in ("", name_network(recorded))
    shutil.rmtree(layout.features("beit3"))
    assert name_network(sample_network(layout)) == ""


def test_figures_within_a_deviation_or_a_step_stay_as_shown(layout: Layout) -> None:
    shown = _figures.rewritten(page("results shop"), layout.root).text
    figure, deviation = re.findall(r"(\.\d{4}) ± (\.\d{4})", shown)[0]
    for moved, stays in ((0.9, True), (1.1, False)):
        other = f"{float(figure) + moved * float(deviation):.4f}".lstrip("0")
        page_of_another = shown.replace(f"{figure} ± {deviation}", f"{other} ± {deviation}")
        again = _figures.rewritten(page_of_another, layout.root).text
        assert again == (page_of_another if stays else shown)
    assert _figures.is_same("| a | .300 |\n| b | .200 |", "| b | .205 |\n| a | .300 |", 0.005)
    assert not _figures.is_same("| a | .300 |", "| a | .306 |", 0.005)
    assert not _figures.is_same("| a | .300 |", "| b | .300 |", 0.005)


def test_a_block_of_the_run_names_its_network(layout: Layout) -> None:
    network = _networks.read_network(layout)
    experiment(layout, "clip", network)
    text = page("results shop", "article shop clip")
    updated, absent, stale = _figures.rewritten(text, layout.root)
    assert (absent, stale) == ([], [])
    assert updated.count(f"\nMade from network `{network}` of shop.\n<!-- /figures -->") == 2
    assert _figures.rewritten(updated, layout.root).text == updated
    assert _networks.find_mixed([updated]) == []


def test_a_block_of_another_network_says_so_and_what_makes_it_again(layout: Layout) -> None:
    experiment(layout, "single-pass", "0123456789ab")
    updated, absent, stale = _figures.rewritten(page("results shop", "article shop single-pass"), layout.root)
    command = "python -m experiments.single_pass shop"
    assert (absent, stale) == ([], [command])
    origin = "Made from another network (`0123456789ab`)"
    assert f"| beit3 | .2 |\n\nThree seeds.\n\n{origin}: `{command}` makes it again.\n" in updated
    assert _figures.rewritten(updated, layout.root).text == updated

    experiment(layout, "single-pass", _networks.read_network(layout))  # made again
    assert "Made from a" not in _figures.rewritten(updated, layout.root).text
    experiment(layout, "single-pass", "")  # of networks that it trains
    assert _figures.rewritten(page("article shop single-pass"), layout.root).text == page(
        "article shop single-pass", body="| features | recall |\n|---|---|\n| beit3 | .2 |\n\nThree seeds.\n"
    )


def test_a_block_without_outputs_is_judged_by_the_network_that_it_names(layout: Layout, tmp_path: Path) -> None:
    """As in a fresh clone, which has the files that git keeps only."""
    shown = _figures.rewritten(page("results shop"), layout.root).text
    clone = Layout(tmp_path / "clone", "shop")
    kept(clone, "metrics", {"network": _networks.read_network(layout)})
    same = _figures.rewritten(shown, clone.root)
    assert (same.text, same.stale) == (shown, [])
    assert len(same.absent) == 1

    kept(clone, "metrics", {"network": "f" * 12})
    other = _figures.rewritten(shown, clone.root)
    assert other.stale == ["make repro"]
    assert f"Made from another network (`{_networks.read_network(layout)}`): `make repro` makes it again." in other.text
    assert "| alignrec | beit3 |" in other.text
    assert _figures.rewritten(other.text, clone.root).text == other.text


def test_pages_of_two_networks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run says which network is the current one, so that neither block can be marked."""
    layout = Layout(tmp_path, "shop")
    experiment(layout, "clip", "a" * 12)
    experiment(layout, "wrong", "b" * 12)
    paths = [tmp_path / "first.md", tmp_path / "second.md"]
    for path, part in zip(paths, ("clip", "wrong"), strict=True):
        path.write_text(page(f"article shop {part}"))
    before = [path.read_text() for path in paths]

    with pytest.raises(SystemExit) as refused:
        _figures.main([*map(str, paths), "--root", str(tmp_path)])
    assert refused.value.code == 1
    assert f"several networks ({'a' * 12}, {'b' * 12})" in capsys.readouterr().err
    assert [path.read_text() for path in paths] == before


def test_marked_blocks_are_written_unless_one_network_is_asked_for(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(layout, "clip", "a" * 12)
    path = tmp_path / "page.md"
    path.write_text(page("article shop clip"))
    arguments = [str(path), "--root", str(layout.root)]
    with pytest.raises(SystemExit):
        _figures.main([*arguments, "--one-network"])
    assert path.read_text() == page("article shop clip")
    assert "`python -m experiments.clip shop`" in capsys.readouterr().err

    _figures.main(arguments)
    assert f"another network (`{'a' * 12}`)" in path.read_text()
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_of_each_recorded_table_exists() -> None:
    for path in (ROOT / "outputs/figures/sample").glob("article-*.json"):
        command = _networks.command_of(path.stem.removeprefix("article-"), "sample")
        module = command.split()[2]
        assert command == _networks.PROFILE or (ROOT / f"{module.replace('.', '/')}.py").is_file(), command
