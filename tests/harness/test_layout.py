"""Paths of files, and how OpenMP's threads wait."""

from pathlib import Path

from alignrec.pipeline.harness import process
from alignrec.pipeline.harness.layout import File, Layout
from alignrec.stages.order import STAGES


def test_every_file_lies_in_a_stages_folder_of_its_dataset() -> None:
    layout = Layout(Path("outputs"), "shop")
    folders = {of(stage) for stage in STAGES for of in (layout.folder, layout.work)}
    named = {name for name, kind in vars(Layout).items() if isinstance(kind, property | File)}
    assert len(named) > 15
    for name in named - {"published", "encoder", "rows"}:
        path = getattr(layout, name)
        assert folders & {path, *path.parents}, name
    assert layout.encoder.folder in folders
    assert len({layout.run_record(stage) for stage in STAGES}) == len(STAGES)


BEFORE = "cpu  1000 20 300 90000 40 5 6 7 0 0\ncpu0 500 10 150 45000 20 2 3 3 0 0\n"
IDLE = "cpu  1000 20 301 90008 41 5 6 7 0 0\ncpu0 500 10 150 45005 20 2 3 3 0 0\n"
BUSY = "cpu  1005 20 300 90005 40 5 6 7 0 0\ncpu0 505 10 150 45000 20 2 3 3 0 0\n"


def test_a_machine_is_idle_by_its_processor_time() -> None:
    assert [process.idle_share(BEFORE, after) for after in (IDLE, BUSY, BEFORE)] == [0.9, 0.5, 0]
