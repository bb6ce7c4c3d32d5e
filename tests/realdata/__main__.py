"""`make realdata [names]`: the real data sets through the pipeline, and their table beside the figures to meet.

A stage whose run record is there is not run again; delete outputs/realdata to start over.
"""

import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

import schemas
from pipeline import io
from pipeline.layout import STAGES, Layout
from pipeline.report import terminal

HERE = Path(__file__).parent
ROOT = Path("outputs/realdata")
IMPORTED = [s for s in STAGES if s not in ("images", "pretrain", "report", "publish")]
PLAN = {"gift_cards": list(STAGES), "industrial": IMPORTED, "tiktok": IMPORTED, "baby": IMPORTED}

FIGURES = {
    ("baby", "bpr", "none"): (0.0575, "published"),
    ("baby", "lightgcn", "none"): (0.0754, "published"),
    ("industrial", "alignrec", "minilm"): (0.1819, "published code, 5 seeds"),
    ("industrial", "alignrec", "random"): (0.1499, "published code, 5 seeds"),
    ("tiktok", "alignrec", "image"): (0.0717, "published code, two seeds that stop on a plateau"),
}
"""(dataset, model, features) -> test Recall@20 at the best valid epoch, from ../shared/design/anchors.md"""


def main(names: list[str]) -> None:
    """Run what is missing, then print every data set's results and the comparison."""
    if not Path("../shared/data").is_dir():
        sys.exit("../shared/data is not there: the real data sets live beside the project, not in it")
    for name in names or PLAN:
        for stage in PLAN[name]:
            if not Layout(ROOT, name).run_record(stage).exists():
                command = [sys.executable, "-m", "stages.cli", stage, name]
                subprocess.run([*command, "--params", HERE / f"{name}.yaml", "--root", ROOT], check=True)
    console = Console()
    for name in names or PLAN:
        console.print(*terminal.tables(io.read_table(Layout(ROOT, name).results, schemas.RESULTS), name))
    console.print(comparison(names or list(PLAN)))


def comparison(names: list[str]) -> Table:
    """Return test Recall@20 beside the figures to meet."""
    shown = Table(title="test Recall@20 beside known figures", title_justify="left")
    for heading in ("dataset", "model", "features", "seeds", "ours", "figure", "difference", "the figure is"):
        shown.add_column(heading)
    for (dataset, model, features), (figure, origin) in FIGURES.items():
        if dataset not in names:
            continue
        is_row = (pc.field("model") == model) & (pc.field("features") == features) & (pc.field("split") == "test")
        is_metric = (pc.field("metric") == "recall") & (pc.field("k") == 20) & (pc.field("selected_by") == "valid")
        is_row &= pc.field("ablation") == ""
        values = io.read_table(Layout(ROOT, dataset).results, schemas.RESULTS).filter(is_row & is_metric)["value"]
        if len(values):
            ours = pc.mean(values).as_py()
            change = f"{ours / figure - 1:+.1%}"
            shown.add_row(dataset, model, features, str(len(values)), f"{ours:.4f}", f"{figure:.4f}", change, origin)
    return shown


if __name__ == "__main__":
    main(sys.argv[1:])
