"""A stage as one value: what it does, whose files it reads, its parameters, what its results depend on, how it runs.

stages/ has a file for each, and their list. dvc.yaml, `alignrec --help` and the docs are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.config.base import Section
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.run import Run


class Needs(NamedTuple):
    """What a result depends on: the arguments of `Run.key`."""

    files: list[Path]
    facts: list[Any]
    """parameters, anything JSON"""
    modules: list[str]
    """whose code the result depends on"""


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage; its name is that of its file, command, section of parameters and output folder."""

    name: str
    does: str
    """in a few words, for --help, `dvc stage list` and the docs"""
    writes: str
    """its files, for the docs, Markdown"""
    params: type[Section]
    main: Callable[[Run], None]
    reads: tuple[Stage, ...] = ()
    """the stages whose files it reads"""
    needs: Callable[[Run], Needs] | None = None
    """what its results depend on, if not `depends` alone; no slow library is loaded to say so"""
    loads: tuple[Registry[Any], ...] = ()
    """registries of the parts that it loads by name"""
    check: Callable[[Run], None] | None = None
    """looks at what it has lost, when it has run"""
    looks: bool = False
    """whether it is asked each time: it reads files of the user's that `needs` alone knows, or writes for git too"""
    late: bool = False
    """whether it reads tables and raw files through `io` alone, which brings those of a bucket when they are read"""
    rereads: bool = False
    """whether it hashes what it reads though nobody has touched it since, so that bits that rot go no further"""

    def asks(self, run: Run) -> Needs:
        """Return what the results of a run depend on; UserError for a missing input says which stage makes it."""
        return self.needs(run) if self.needs else self.depends(run)

    def depends(
        self,
        run: Run,
        *facts: Any,
        files: Iterable[Path] | None = None,
        parts: Sequence[tuple[Registry[Any], str]] = (),
    ) -> Needs:
        """Return what every stage depends on, its section and its code, and what is given.

        Args:
            facts: anything JSON beside its own section.
            files: that it reads; by default all that the stages of `reads` have written.
            parts: that it loads by name, each with its registry.
        """
        sources = [path for registry, name in parts for path in registry.source_files(name)]
        modules = [f"stages.{self.name}", *(registry.module(name) for registry, name in parts)]
        read = self.inputs(run) if files is None else files
        return Needs([*read, *sources], [run.params[self.params].facts(), *facts], modules)

    def inputs(self, run: Run) -> list[Path]:
        """Return the files of the stages that it reads.

        Records of trainings are left out: code is part of their names, and the tables say what came out.
        """
        written = [path for stage in self.reads for path in run.layout.outputs(stage.name)]
        records = [run.layout.runs, *(run.layout.cells(stage.name) for stage in self.reads)]
        return [path for path in written if path not in records and path.parent not in records]

    def before(self) -> list[str]:
        """Return the names of the stages that must run before it, in order."""
        return list(dict.fromkeys(name for stage in self.reads for name in (*stage.before(), stage.name)))
