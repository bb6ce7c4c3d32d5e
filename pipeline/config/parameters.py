"""A parameter file as one value, whatever stages there are; stages/params.py gives it their sections."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny

from pipeline.config.base import Kind, Name, Section, nearest
from pipeline.config.source import Source
from pipeline.errors import UserError, one_line


class Parameters(Section):
    """The whole of params.yaml: `params[Graph]` is the section of that class."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """what `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, SerializeAsAny[Source]]
    encoders: dict[Name, dict[str, Any]] = {}
    """name -> its kind, a name in pipeline/encode/registry.py, and keys of that kind's class in pipeline/encode/"""

    def __getitem__(self, kind: type[Kind]) -> Kind:
        """Return the section of a class; KeyError where none has it."""
        for name in type(self).model_fields:
            if type(section := getattr(self, name)) is kind:
                return section
        raise KeyError(kind.__name__)

    def section(self, name: str) -> Section:
        """Return the section of a stage, with the defaults of the class that reads it."""
        section: Section = getattr(self, name)
        return section.resolved()

    def having(self, *sections: Section) -> Self:
        """Return these parameters with other sections in place of those of the same classes."""
        names = {type(getattr(self, name)): name for name in type(self).model_fields}
        return self.model_copy(update={names[type(section)]: section for section in sections})

    def source(self, dataset: str) -> Source:
        """Return where `dataset` comes from; an unknown name raises UserError with the nearest known one."""
        if dataset not in self.sources:
            raise UserError(
                f"no dataset '{one_line(dataset, 64)}' under sources in the parameters{nearest(dataset, self.sources)}"
            )
        return self.sources[dataset]
