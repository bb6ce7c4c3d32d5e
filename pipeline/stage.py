"""A stage as one value: what it does, which stages and parameters it reads, and how it runs.

stages/ has a file for each, and their list. dvc.yaml, `alignrec --help` and the docs are made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.base import Section
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.run import Run


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
    sections: tuple[str, ...] = ()
    """parameters that it reads besides its own section: names of sections, or SOURCE for its dataset's source"""
    loads: tuple[Registry[Any], ...] = ()
    """registries of the parts that it loads by name"""
    check: Callable[[Run], None] | None = None
    """looks at what it has lost, when it has run"""

    def before(self) -> list[str]:
        """Return the names of the stages that must run before it, in order."""
        return list(dict.fromkeys(name for stage in self.reads for name in (*stage.before(), stage.name)))

    def modules(self) -> list[str]:
        """Return the modules whose code, with all that they import, its results depend on."""
        parts = [registry.module(name) for registry in self.loads for name in registry.built_in]
        return [f"stages.{self.name}", *dict.fromkeys(parts)]


SOURCE = "sources"
FEATURE_SETS = ("encode", "encoders", SOURCE)
"""what says which feature sets there are"""
