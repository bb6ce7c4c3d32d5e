"""Definition of a stage, from which dvc.yaml, `alignrec --help` and the docs are generated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.harness import process, progress
from alignrec.pipeline.harness.config import Section
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.registry import Registry
from alignrec.pipeline.harness.run import Run, hold_lock, intact_record, locked, present_files, recorded
from alignrec.pipeline.io.errors import UserError


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage; its file, command, section of parameters and output folder share its name."""

    name: str
    does: str  # short description for --help, `dvc stage list` and the docs
    writes: str  # its files, Markdown for the docs
    params: type[Section]
    main: Callable[[Run], None]
    reads: tuple[Stage, ...] = ()  # stages whose files it reads
    # parameters besides its own section: a section, a key such as "train.features", or SOURCE for the dataset's source
    sections: tuple[str, ...] = ()
    loads: tuple[Registry[Any], ...] = ()  # registries of parts that it loads by name
    light: bool = False  # starts without torch: settings of models and encoders were validated by `download`
    resumes: bool = False  # resumes unfinished work, which is deleted for other stages
    per: str = (
        ""  # matrix key besides the dataset, such as "encoder": one run for each of `<name>.<per>s` in params.yaml
    )

    def before(self) -> list[str]:
        return list(dict.fromkeys(name for stage in self.reads for name in (*stage.before(), stage.name)))

    def folders(self, layout: Layout) -> list[Path]:
        """Return its output folders: one, or one for each item of `per`."""
        folder = layout.out(self.name)
        return sorted(folder.glob("*/")) if self.per else [folder]

    def modules(self) -> list[str]:
        parts = [registry.module(name) for registry in self.loads for name in registry.built_in]
        return [f"alignrec.stages.{self.name}", *dict.fromkeys(parts)]


SOURCE = "sources"
FEATURE_SETS = ("encode.encoders", "beit3", "combine", SOURCE)  # parameters that define the feature sets


def perform(run: Run, stage: Stage, check: Callable[[Run], None]) -> None:
    """Validate parameters and inputs of a stage, then run it."""
    if run.part:
        check(run)
        refuse_altered(run.layout, stage.reads, stage.name)
        part, parts = run.part
        # lock the part only, against a resubmitted job: other parts write to the same folder at the same time
        same = run.folder.with_name(f"{run.folder.name}.{part}-{parts}")
        with hold_lock(same), progress.print_heartbeat(run.label, run.bars):
            run.folder.mkdir(exist_ok=True)
            stage.main(run)
        print(f"{run.label}: part {part} of {parts} is there; after all parts run it without --part", flush=True)
        return
    with process.process_group(), locked(run):
        if not stage.light:
            check(run)
        # hash inputs in one process only
        if not process.rank():
            refuse_altered(run.layout, stage.reads, stage.name)
        # leftovers of an interrupted run must not end up in the output
        if not stage.resumes:
            shutil.rmtree(run.folder)
            run.folder.mkdir()
        with recorded(run):
            stage.main(run)


def refuse_altered(layout: Layout, stages: Iterable[Stage], reader: str) -> None:
    """Hash the outputs of stages; UserError names the first that is altered, so that corruption does not spread."""
    for stage in stages:
        for folder in stage.folders(layout):
            record, present = intact_record(folder), present_files(folder)
            path, files = folder / io.RECORD, record["files"] if record else {}
            altered = [name for name in sorted(files.keys() | present.keys()) if files.get(name) != present.get(name)]
            if not altered:  # a stage that requires files of a folder without any reports it
                continue
            if record is None:
                fault = f"{path} was edited" if path.exists() else f"{folder}: {stage.name} has not ended"
            elif altered[0] not in files:
                raise UserError(f"{folder / altered[0]} is of no stage, and {reader} reads it; delete it")
            else:
                what = "is not as it was made" if altered[0] in present else "is gone"
                fault = f"{folder / altered[0]} {what}"
            again = " ".join([stage.name, *folder.relative_to(layout.root / stage.name).parts])
            raise UserError(f"{fault}, and {reader} reads it; run `alignrec {again}`, which makes it again")
