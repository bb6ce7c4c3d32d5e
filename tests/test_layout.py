from pathlib import Path

from pipeline.layout import File, Layout
from stages.order import STAGES


def test_every_file_lies_in_a_stages_folder_of_its_dataset() -> None:
    layout = Layout(Path("outputs"), "shop")
    folders = {layout.folder(stage) for stage in STAGES}
    named = {name for name, kind in vars(Layout).items() if isinstance(kind, property | File)}
    assert len(named) > 30
    for name in named - {"published", "encoder"}:
        path = getattr(layout, name)
        assert folders & {path, *path.parents}, name
    assert layout.encoder.folder in folders
    assert len({layout.run_record(stage) for stage in STAGES}) == len(STAGES)
