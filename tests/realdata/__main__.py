"""`make realdata [names]`: run the pipeline on the real datasets and print their figures.

Finished work is kept; delete outputs/realdata to start over.
"""

import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.release.leaderboard import published_entries
from alignrec.pipeline.report import terminal
from alignrec.pipeline.runtime.section import nearest
from alignrec.stages.order import STAGES

from .cases import NAMES, Case, cases

ROOT = Path("outputs/realdata")
IMPORTED = [s for s in STAGES if s not in ("images", "pretrain", "beit3", "report", "publish")]
CONTENT = ["download", "interactions", "items", "images", "encode", "combine", "graph", "benchmark"]
STAGES_OF = dict.fromkeys(("industrial", "tiktok", "baby"), IMPORTED) | {
    name: CONTENT for name in NAMES if "_content" in name
}
"""dataset -> its stages; the others run all"""

PUBLISHED = {entry.model: entry.headline for entry in published_entries() if entry.dataset == "baby"}
FIGURES = {
    ("baby", "bpr", "none"): (PUBLISHED["BPR"], "published"),
    ("baby", "lightgcn", "none"): (PUBLISHED["LightGCN"], "published"),
    ("industrial", "alignrec", "minilm"): (0.1819, "published code, 5 seeds"),
    ("industrial", "alignrec", "random"): (0.1499, "published code, 5 seeds"),
    ("tiktok", "alignrec", "image"): (0.0717, "published code, two seeds that stop on a plateau"),
}
"""(data set, model, features) -> test Recall@20 at the best valid epoch, from ../shared/design/anchors.md"""


def main(names: list[str]) -> None:
    if unknown := [name for name in names if name not in NAMES]:
        sys.exit(f"no real dataset '{unknown[0]}'{nearest(unknown[0], NAMES)}")
    if not Path("../shared/data").is_dir():
        sys.exit("../shared/data is not there: the real datasets lie next to the project")
    known = cases(ROOT)
    chosen = {name: known[name] for name in names or known}
    for case in chosen.values():
        run(case)
    console = Console()
    for name, case in chosen.items():
        console.print(*terminal.result_tables(io.read_table(case.layout.results, schemas.RESULTS), name))
    console.print(comparison(chosen))


def run(case: Case) -> None:
    alignrec = [sys.executable, "-m", "alignrec"]
    for stage in STAGES_OF.get(case.name, STAGES):
        case.adopt(stage)
        where = ["--params", case.params, "--root", case.layout.root]
        subprocess.run([*alignrec, stage, case.layout.dataset, *where], check=True)
    if case.layout.release.is_dir():
        subprocess.run([*alignrec, "verify", case.layout.release], check=True)


def comparison(chosen: dict[str, Case]) -> Table:
    printed = Table(title="test Recall@20 and known figures", title_justify="left")
    for heading in ("dataset", "model", "features", "seeds", "ours", "figure", "difference", "the figure is"):
        printed.add_column(heading)
    for (name, model, features), (figure, origin) in FIGURES.items():
        if name not in chosen:
            continue
        is_row = (pc.field("model") == model) & (pc.field("features") == features) & (pc.field("split") == "test")
        is_metric = (pc.field("metric") == "recall") & (pc.field("k") == 20) & (pc.field("selected_by") == "valid")
        is_row &= pc.field("ablation") == ""
        values = io.read_table(chosen[name].layout.results, schemas.RESULTS).filter(is_row & is_metric)["value"]
        if len(values):
            ours = pc.mean(values).as_py()
            change = f"{ours / figure - 1:+.1%}"
            printed.add_row(name, model, features, str(len(values)), f"{ours:.4f}", f"{figure:.4f}", change, origin)
    return printed


if __name__ == "__main__":
    main(sys.argv[1:])
