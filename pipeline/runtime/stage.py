"""Stages: what each reads, writes and needs, and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import intact_record, present_files
from alignrec.pipeline.runtime.registry import Registry
from alignrec.pipeline.runtime.run import Run, locked, recorded
from alignrec.pipeline.runtime.section import Section

SOURCE = "sources"
FEATURE_SETS = (
    "encode.encoders",
    "beit3",
    "combine",
    SOURCE,
)  # parameters that define the feature sets


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage; its file, command, section of parameters and output folder share its name."""

    name: str
    does: str  # short description for --help, `dvc stage list` and the docs
    writes: str  # description of its files for the docs, as Markdown
    params: type[Section]
    main: Callable[[Run], None]
    reads: tuple[Stage, ...] = ()  # stages whose files it reads
    # parameters besides its own section: a section, a key such as "train.features", or SOURCE for
    # the dataset's source
    sections: tuple[str, ...] = ()
    loads: tuple[Registry[Any], ...] = ()  # registries of parts that it loads by name
    # starts without torch: settings of models and encoders were validated by `download`
    light: bool = False
    resumes: bool = False  # resumes unfinished work, which is deleted for other stages
    # matrix key besides the dataset, such as "encoder": one run for each of `<name>.<per>s` in
    # params.yaml
    per: str = ""

    def before(self) -> list[str]:
        """Return the names of all stages that it depends on, in order."""
        names: dict[str, None] = {}
        for stage in self.reads:
            names |= dict.fromkeys([*stage.before(), stage.name])
        return list(names)

    def folders(self, layout: Layout) -> list[Path]:
        """Return its output folders: one, or one for each item of `per`."""
        folder = layout.out(self.name)
        return sorted(folder.glob("*/")) if self.per else [folder]

    def modules(self) -> list[str]:
        modules = [f"alignrec.stages.{self.name}"]
        for registry in self.loads:
            modules += [registry.module(name) for name in registry.built_in]
        return list(dict.fromkeys(modules))


def perform(run: Run, stage: Stage, check: Callable[[Run], None]) -> None:
    """Validate parameters and inputs of a stage, then run it."""
    with process.process_group(), locked(run):
        if not stage.light:
            check(run)
        # hash inputs in one process only
        if not process.rank():
            refuse_altered(run.layout, stage.reads, stage.name)
        # leftovers of an interrupted run must not end up in the output
        if not stage.resumes:
            io.remove(run.folder)
            run.folder.mkdir()
        with recorded(run):
            stage.main(run)


def refuse_altered(layout: Layout, stages: Iterable[Stage], reader: str) -> None:
    """Hash the outputs of stages.

    UserError names the first that is altered, so that corruption does not spread.
    """
    for stage in stages:
        for folder in stage.folders(layout):
            fault = _find_fault(folder, stage.name)
            if fault is None:
                continue
            if fault.endswith("is of no stage"):
                raise UserError(f"{fault}, and {reader} reads it; delete it")
            command = " ".join([stage.name, *folder.relative_to(layout.root / stage.name).parts])
            raise UserError(
                f"{fault}, and {reader} reads it; run `alignrec {command}`, which makes it again"
            )


def _find_fault(folder: Path, stage: str) -> str | None:
    """Return how a stage's folder differs from its record; None if it does not."""
    record = intact_record(folder)
    recorded_files = record["files"] if record else {}
    files = present_files(folder)

    names = sorted(recorded_files.keys() | files.keys())
    altered = [name for name in names if recorded_files.get(name) != files.get(name)]
    # empty folders are reported by the stages that need them
    if not altered:
        return None

    if record is None:
        path = folder / io.RECORD
        return f"{path} was edited" if path.exists() else f"{folder}: {stage} has not ended"
    path = folder / altered[0]
    if altered[0] not in recorded_files:
        return f"{path} is of no stage"
    return f"{path} is not as it was made" if path.exists() else f"{path} is gone"
