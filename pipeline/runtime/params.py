"""The whole of params.yaml, by section."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.runtime.section import Kind, Name, Section, nearest
from alignrec.pipeline.runtime.source import Source


class Parameters(Section):
    """The whole of params.yaml; `params[Graph]` is the section of class Graph."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """datasets that `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, SerializeAsAny[Source]]
    encoders: dict[Name, dict[str, Any]] = {}
    """name -> `kind`, a name in pipeline/encoders/registry.py, and parameters of its class"""

    def __getitem__(self, kind: type[Kind]) -> Kind:
        for name in type(self).model_fields:
            if type(section := getattr(self, name)) is kind:
                return section
        raise KeyError(kind.__name__)

    def section(self, name: str) -> Section:
        section: Section = getattr(self, name)
        return section.resolved()

    def with_sections(self, *sections: Section) -> Self:
        names = {type(getattr(self, name)): name for name in type(self).model_fields}
        return self.model_copy(update={names[type(section)]: section for section in sections})

    def source(self, dataset: str) -> Source:
        if dataset not in self.sources:
            similar = nearest(dataset, self.sources)
            raise UserError(
                f"no dataset '{one_line(dataset, 64)}' under sources in the parameters{similar}"
            )
        return self.sources[dataset]
