"""Stages: what each reads, writes and needs, and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.runtime import process, progress
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import intact_record, present_files
from alignrec.pipeline.runtime.registry import Registry
from alignrec.pipeline.runtime.run import (
    Run,
    hold_lock,
    locked,
    make_folder,
    recorded,
    refuse_links,
)
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
    # returns the item whose files a folder has, if they name it
    read_item: Callable[[Path], str | None] = lambda folder: None

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
    if run.part:
        _perform_part(run, stage, check)
        return

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
        with recorded(run), unchanged_inputs(run, stage):
            stage.main(run)


def _perform_part(run: Run, stage: Stage, check: Callable[[Run], None]) -> None:
    check(run)
    refuse_altered(run.layout, stage.reads, stage.name)
    assert run.part
    part, parts = run.part

    # lock the part only, against a resubmitted job: other parts write to the same folder at the
    # same time
    refuse_links(run)
    folder_of_part = run.folder.with_name(f"{run.folder.name}.{part}-{parts}")
    with hold_lock(folder_of_part), progress.print_heartbeat(run.label, run.bars):
        make_folder(run.folder)
        stage.main(run)
    done = f"part {part} of {parts} is there; after all parts run it without --part"
    print(f"{run.label}: {done}", flush=True)


def refuse_altered(layout: Layout, stages: Iterable[Stage], reader: str) -> None:
    """Hash the outputs of stages.

    UserError names the first that is altered, so that corruption does not spread.
    """
    for stage in stages:
        for folder in stage.folders(layout):
            fault = _find_fault(folder, stage.name) or _find_other(folder, stage, layout)
            if fault is None:
                continue
            if fault.endswith("is of no stage"):
                raise UserError(f"{fault}, and {reader} reads it; delete it")
            command = " ".join([stage.name, *folder.relative_to(layout.root / stage.name).parts])
            raise UserError(
                f"{fault}, and {reader} reads it; run `alignrec {command}`, which makes it again"
            )


@contextmanager
def unchanged_inputs(run: Run, stage: Stage) -> Iterator[None]:
    """Raise UserError, and drop what was made, if an input changes while the stage runs.

    It replaces the error to which the change may have led. Files whose size and times are as before
    are not hashed again.
    """
    try:
        yield
    except Exception:
        _refuse_changed(run, stage)
        raise
    _refuse_changed(run, stage)


def _refuse_changed(run: Run, stage: Stage) -> None:
    if process.rank():
        return
    try:
        refuse_altered(run.layout, stage.reads, stage.name)
    except UserError:
        io.remove(run.folder)
        raise


def _find_other(folder: Path, stage: Stage, layout: Layout) -> str | None:
    """Return what an intact folder is a copy of; None if it is in its own place."""
    record = intact_record(folder)
    if record is None:
        return None

    expected = [stage.name, layout.dataset]
    found = [str(record.get("stage")), str(record.get("dataset"))]
    if stage.per:
        expected.append(folder.name)
        found.append(stage.read_item(folder) or folder.name)
    if found == expected:
        return None
    return f"{folder} is a copy of {one_line('/'.join(found), 200)}"


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
