from pathlib import Path

from pipeline.layout import Layout
from stages.order import STAGES

PROPERTIES = [name for name, kind in vars(Layout).items() if isinstance(kind, property)]


def test_every_file_lies_in_a_stages_folder_of_its_dataset() -> None:
    layout = Layout(Path("outputs"), "shop")
    folders = {layout.folder(stage) for stage in STAGES}
    for name in PROPERTIES:
        path = getattr(layout, name) if name != "encoder" else layout.encoder.folder
        assert name == "published" or folders & {path, *path.parents}, name


def test_two_stages_never_share_a_run_record() -> None:
    layout = Layout(Path("outputs"), "shop")
    assert len({layout.run_record(stage) for stage in STAGES}) == len(STAGES)
