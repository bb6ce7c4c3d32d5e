"""`alignrec plan`: sizes, estimates from shapes, addresses and models that are there or not."""

from collections.abc import Iterator
from pathlib import Path

import networks
import pytest
import yaml
from commands import alignrec
from hub import Hub
from hub import hub as serving_hub
from ratings import write_inter
from webserver import body, hang, serving

from alignrec.commands import estimate, models, plan
from alignrec.commands.params import load
from alignrec.commands.size import CHARACTERS_PER_PIECE, read_size
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources import download
from alignrec.stages.order import STAGES

SAMPLE = {"shop": {"kind": "sample"}}
BABY = {"baby": {"kind": "amazon2014", "category": "Baby"}}


def params(folder: Path, sources: dict, **sections: object) -> tuple[Parameters, Layout]:
    name = next(iter(sources))
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"datasets": [name], "sources": sources, **sections}))
    return load(path, name), Layout(folder / "outputs", name)


def planned(folder: Path, sources: dict, **sections: object) -> dict[str, estimate.Estimate]:
    settings, layout = params(folder, sources, **sections)
    return estimate.estimate_stages(settings, layout.dataset, read_size(settings, layout), 1e11)


def test_a_size_is_counted_or_published_or_measured(tmp_path: Path) -> None:
    assert str(read_size(*params(tmp_path, BABY))) == (
        "19,445 users, 7,050 items, 160,792 interactions, 128 pieces a text, as published"
    )
    layout = Layout(tmp_path / "outputs", "baby")
    io.write_json(layout.run_record("interactions"), {"rows_out": 9, "notes": {"users": 3, "items": 4}})
    said = str(read_size(*params(tmp_path, BABY)))
    assert said.startswith("3 users, 4 items, 9 interactions, 128 pieces a text, counted in ")
    beauty = {"kind": "amazon2023", "category": "All_Beauty"}
    assert read_size(*params(tmp_path, {"small": beauty})).origin == "estimated from published counts"

    rows = "".join(f"u{u},i{i},{u * 30 + i}\n" for u in range(12) for i in range(12))
    (tmp_path / "ratings.csv").write_text("user,item,timestamp\n" + rows)
    title = "a clock with two faces and a bell"
    (tmp_path / "items.jsonl").write_text(f'{{"item": "i0", "title": "{title}"}}\n')
    paths = {"interactions": str(tmp_path / "ratings.csv"), "items": str(tmp_path / "items.jsonl")}
    mine = {"kind": "tabular", "timestamps": "order"} | paths
    measured = read_size(*params(tmp_path, {"mine": mine}))
    assert (measured.users, measured.items, measured.interactions) == (12, 12, 144)
    assert measured.pieces == round(len(f"{title}.") / CHARACTERS_PER_PIECE)


def test_a_published_split_is_counted_as_the_stage_imports_it(tmp_path: Path) -> None:
    # user 11 has no training interaction, so that the stage drops the row
    pairs = [(u, i, int(i > 8) + int(i > 9)) for u in range(11) for i in range(11)] + [(11, 3, 2)]
    inter = tmp_path / "toy.inter"
    write_inter(inter, pairs)
    counted = read_size(*params(tmp_path, {"mine": {"kind": "mmrec", "interactions": str(inter)}}))
    assert (counted.users, counted.items, counted.interactions) == (12, 11, 121)


def test_time_follows_size_and_settings(tmp_path: Path) -> None:
    small, large = (planned(tmp_path, {"shop": {"kind": "sample", "users": n, "items": n}}) for n in (400, 1600))
    for stage in ("encode", "beit3", "graph", "train", "probe", "benchmark"):
        assert small[stage].seconds < large[stage].seconds, stage
    more, fewer = (planned(tmp_path, SAMPLE, benchmark={"seeds": n})["benchmark"] for n in (6, 3))
    assert more.seconds == pytest.approx(2 * fewer.seconds, rel=0.1)
    untrained, trained = (planned(tmp_path, SAMPLE, pretrain={"size": "small", "steps": n}) for n in (0, 3000))
    assert untrained["pretrain"].seconds < trained["pretrain"].seconds / 10
    assert "pretrain" not in planned(tmp_path, SAMPLE, beit3={"sets": []})


def test_regenerate_baby_states_what_is_planned() -> None:
    settings = load(Path("profiles/baby.yaml"), "baby")
    size = read_size(settings, Layout(Path("nowhere"), "baby"))
    stages = estimate.estimate_stages(settings, "baby", size, 0.35e12)
    page = Path("docs/regenerate-baby.md").read_text()
    for name, cost in stages.items():
        assert f"| {' | '.join(plan.describe(name, cost))} |" in page


def test_addresses_answer_or_say_why_not(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"12345")
    paths = {
        "/file": body(b"x" * 1234),
        "/page": body(b"<html>", Content_Type="text/html; charset=utf-8"),
        "/mum": hang,
    }
    with serving(paths) as server:
        at = server.address
        asked = {
            "answers": f"{at}/file",
            "here": str(tmp_path / "here"),
            "absent": f"{at}/absent",
            "page": f"{at}/page",
            "silent": f"{at}/mum",
            "refused": "http://127.0.0.1:9/file",
            "nameless": "http://no-such-host.invalid/<b>file</b>",
            "lost": str(tmp_path / "mislaid"),
            "odd": "gopher://x/file",
        }
        answers = download.ask_for_files(asked, 6.0)()
    assert [answers[key].size for key in ("answers", "here")] == [1234, 5]
    said = {key: answer.fault.removeprefix(f"{answer.address}: ") for key, answer in answers.items() if answer.fault}
    assert said == {
        "absent": "no such file (HTTP 404)",
        "page": "a web page",
        "silent": "ReadTimeout",
        "refused": "ConnectError",
        "nameless": "name not resolved: no-such-host.invalid",
        "lost": "no such file; correct the path",
        "odd": "cannot fetch 'gopher' addresses; use http, https, file or a path",
    }


def test_a_pinned_file_is_looked_up_without_its_pin(tmp_path: Path) -> None:
    pretrain = {"size": "small", "init": f"weights.pth#sha256={'0' * 64}"}
    settings, _ = params(tmp_path, SAMPLE, pretrain=pretrain)
    assert plan.list_addresses(settings, "shop") == {"pretrain.init": "weights.pth"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub(tmp_path / "cache", monkeypatch) as server:
        yield server


def test_a_run_begins_with_the_names_of_models(tmp_path: Path, hub: Hub) -> None:
    def with_model(name: str) -> Parameters:
        mine = {"mine": {"kind": "huggingface", "model": name}}
        listed = {"encode": {"encoders": ["mine"]}, "beit3": {"sets": []}}
        return params(tmp_path, SAMPLE, encoders=mine, **listed)[0]

    hub.publish("someone/tiny", networks.bert(tmp_path / "tiny"))
    models.refuse_absent_models(with_model("someone/tiny"))
    models.refuse_absent_models(with_model(str(tmp_path / "tiny")))
    assert not hub.fetched
    with pytest.raises(UserError, match="no folder 'tiyn'; give a folder, or owner/name on the Hugging Face Hub"):
        models.refuse_absent_models(with_model("tiyn"))
    with_model("someone/tiyn")
    said = alignrec("download", "shop", cwd=tmp_path)
    assert said.exit_code
    assert "'encoders.mine.model': someone/tiyn: neither a folder nor a model" in said.output
    assert not (tmp_path / "outputs" / "download" / "shop" / "run.json").exists()


def test_the_command_shows_a_row_a_stage(tmp_path: Path) -> None:
    params(tmp_path, SAMPLE)
    done = alignrec("plan", cwd=tmp_path)
    assert done.exit_code == 0, done.output
    rows = [line.split()[0] for line in done.output.splitlines() if line.strip()]
    assert {*STAGES, "all"} <= {*rows}
    begun, size, rate, *_ = done.output.splitlines()
    assert begun == "shop: asking for 0 files, at most 4 s; timing a matrix product"
    assert size == "shop: 3,600 users, 1,600 items, 32,400 interactions, 12 pieces a text, before its filter"
    assert rate.startswith("computed for matrix products at ")
    assert not (tmp_path / "outputs").exists()


def test_without_a_network_it_names_the_paths_to_give(tmp_path: Path) -> None:
    away = {"reviews": "http://a.invalid/reviews.json.gz", "metadata": "http://a.invalid/meta.json.gz"}
    params(tmp_path, {"baby": BABY["baby"] | away})
    done = alignrec("plan", "baby", cwd=tmp_path)
    assert done.exit_code == 1
    for key in ("reviews", "metadata"):
        assert f"sources.baby.{key}: PATH" in done.output
    assert "160,792 interactions" in done.output  # and the plan all the same
    done = alignrec("plan", "shpo", cwd=tmp_path)
    assert (done.exit_code, done.output.count("\n"), "shpo" in done.output) == (1, 1, True)
