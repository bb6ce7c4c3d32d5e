"""A parameter file; alignrec/commands/params.py adds the sections."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny

from alignrec.pipeline.config.base import Kind, Name, Section, nearest
from alignrec.pipeline.errors import UserError, one_line

# item fields in a release besides identifier and hashes: title, brand, categories, description, text and image address;
# title and categories; none
Shown = Literal["all", "titles", "none"]


@dataclass(frozen=True)
class Licence:
    """Licence of data derived from a source."""

    header: Mapping[str, str]  # keys of the Hub's metadata block
    text: str  # human-readable terms
    interactions: bool = False  # whether a release may contain the interactions
    synthetic: str = ""  # sentence on which data are synthetic, if any
    address: str = ""  # URL of the licence
    texts: Shown = "all"  # item fields that a release may contain


OWN = Licence(
    {"license": "unknown"},
    "Made from files that the publisher of this release named; their terms are the publisher's to state.",
)


class Source(Section):
    """A dataset under `sources` of params.yaml, and base class of all kinds of source.

    A kind overrides `reader` and is registered in pipeline/sources/base.py. `licence` applies to data derived from it;
    `has_split` is whether its interactions come with a split.
    """

    kind: str
    """a name in pipeline/sources/base.py"""
    licence: ClassVar[Licence] = OWN

    @property
    def has_split(self) -> bool:
        return False

    @abstractmethod
    def reader(self) -> Any:
        """Return the reader of its raw files, a `Reader` of pipeline/sources/base.py."""


class Parameters(Section):
    """All of params.yaml; `params[Graph]` is the section of class Graph."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """datasets that `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, SerializeAsAny[Source]]
    encoders: dict[Name, dict[str, Any]] = {}
    """name -> `kind`, a name in pipeline/encode/registry.py, and parameters of that kind's class in pipeline/encode/"""

    def __getitem__(self, kind: type[Kind]) -> Kind:
        for name in type(self).model_fields:
            if type(section := getattr(self, name)) is kind:
                return section
        raise KeyError(kind.__name__)

    def section(self, name: str) -> Section:
        section: Section = getattr(self, name)
        return section.resolved()

    def having(self, *sections: Section) -> Self:
        names = {type(getattr(self, name)): name for name in type(self).model_fields}
        return self.model_copy(update={names[type(section)]: section for section in sections})

    def source(self, dataset: str) -> Source:
        if dataset not in self.sources:
            raise UserError(
                f"no dataset '{one_line(dataset, 64)}' under sources in the parameters{nearest(dataset, self.sources)}"
            )
        return self.sources[dataset]
