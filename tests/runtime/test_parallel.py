"""Two processes under torchrun learn as one does, and only the first writes."""

import os
from pathlib import Path

import pytest
import shims
import torch.distributed.run as torchrun
import yaml
from processes import Started, started
from shims import ROOT
from shop import toy
from shop.pretraining import features, network, shop, task

from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.beit3.training import fit
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import running

FIGURES = ("loss", "mim_loss", "mlm_loss", "distill_loss", "mlm_held_out_loss")
STEPS = 8


def _prepared(root: Path) -> Path:
    shop(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["pretrain"] |= {"distill": 1.0, "distill_from": ["tfidf"], "steps": STEPS}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    features(root, "tfidf")
    return root


KILLED = """
import sys
from processes import command, kill_after
from alignrec.pipeline.runtime.checkpoint import Checkpoint
kill_after(Checkpoint, "save")
command(*sys.argv[1:])
"""


def _torchrun(root: Path, *program: str | Path) -> Started:
    ours = [*program, "pretrain", "toy", "--params", root / "params.yaml", "--root", root]
    command = ["--standalone", "--nproc-per-node", "2", *map(str, ours)]
    return started(torchrun.main, command, PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / "tests"))))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, of which the first is killed after a checkpoint; restarted together."""
    root = _prepared(tmp_path_factory.mktemp("two"))
    (root / "killed.py").write_text(KILLED)
    assert _torchrun(root, root / "killed.py").wait() != 0
    assert Layout(root, "toy").encoder_checkpoint.exists()
    process = _torchrun(root, "--no-python", shims.folder() / "alignrec")
    assert process.wait() == 0, process.stderr.read()
    return root


@pytest.mark.slow
def test_two_processes_learn_what_one_does_at_the_same_batch(two: Path, tmp_path: Path) -> None:
    """Within 1e-4 at first and 1e-2 at the end, as different orders of summation diverge."""
    toy.run("pretrain", load(_prepared(tmp_path) / "params.yaml"), tmp_path, "toy")
    ours, theirs = (io.read_json(Layout(root, "toy").history("pretrain")) for root in (tmp_path, two))
    for a, b in zip(ours, theirs, strict=True):
        for name in FIGURES:
            assert a[name] == pytest.approx(b[name], rel=1e-4 if a["step"] <= 3 else 1e-2), (name, a["step"])
    folder = Layout(two, "toy").encoder.folder
    assert not list(folder.rglob(".*.tmp"))
    assert not Layout(two, "toy").encoder_checkpoint.exists()
    assert io.read_json(folder / "run.json")["notes"]["step"] == STEPS


def test_other_stages_and_too_small_batches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"pretrain\.batch_size 4 .* 3 items"):
        fit(network(), task(24, batch_size=4, accumulate=5), Checkpoint(Path("never"), 1), int)
    shop(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = pytest.raises(UserError, match="graph")
    with refused, running("graph", "toy", load(tmp_path / "params.yaml"), tmp_path):
        pass
