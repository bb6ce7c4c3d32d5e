"""Sections of the parameters: their base class, types of keys, validation, and messages for invalid values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

MAX_COMPARED_CHARACTERS = 64  # of a name, to suggest the nearest known one
MAX_VALUES_SHOWN = 20  # maximum values of a list or mapping shown in a message

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def _check_port(address: str) -> str:
    try:
        urlsplit(address).port  # noqa: B018  # the property validates the port
    except ValueError as e:
        raise ValueError(f"not a valid address: {e}") from None
    return address


Address = Annotated[str, AfterValidator(_check_port)]  # URL or path
WRAPPED = BeforeValidator(
    lambda raw: [raw] if isinstance(raw, str) else raw
)  # a single item needs no brackets
# addresses of one file, tried in order: URLs (http, https, file) or paths; a single one needs no list
Mirrors = Annotated[list[Address], Field(min_length=1), WRAPPED]


class Section(BaseModel):
    """A section of params.yaml. Unknown keys are errors, values are not coerced, instances are immutable."""

    # commands need few validators, and to build all takes 0.1 s
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
    speed: ClassVar[frozenset[str]] = frozenset()
    """keys that affect run time but not results"""

    def facts(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(self.speed))

    def resolved(self) -> Section:
        return self


Kind = TypeVar("Kind", bound=Section)


def validate(kind: type[Kind], raw: Any, where: str = "") -> Kind:
    """Validate parsed YAML as a section; UserError names the first error, with `where` as the path of the section."""
    try:
        return kind.model_validate(raw)
    except ValidationError as e:
        raise UserError(first_fault(e, kind, where)) from None


def require_known(names: Iterable[str], among: Iterable[str], where: str) -> None:
    """Raise UserError for a name that is not `among` the known ones, and suggest the nearest."""
    for name in names:
        if name not in among:
            raise UserError(f"'{where}': no '{one_line(name, 64)}'{nearest(name, among)}")


def nearest(name: str, among: Iterable[str]) -> str:
    among = list(among)
    similar = difflib.get_close_matches(name[:MAX_COMPARED_CHARACTERS], among, n=1, cutoff=0.6)
    return (
        f"; did you mean '{similar[0]}'?"
        if similar
        else f"; valid: {', '.join(among)}"
        if among
        else ""
    )


def first_fault(error: ValidationError, kind: type[Section], where: str = "") -> str:
    """Describe the first error of untrusted values; unknown keys come first, as they may be misspelt required keys."""
    faults = error.errors()
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    path = (
        one_line(".".join([where] * bool(where) + [str(part) for part in fault["loc"]]), 120)
        or "the file"
    )
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{path}'{nearest(str(fault['loc'][-1]), _valid_keys(kind, fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"'{path}' is required"
    if (
        fault["type"] == "literal_error" and "[key]" in fault["loc"]
    ):  # the key of a mapping with fixed keys
        place = fault["loc"][: fault["loc"].index("[key]")]
        expected = [
            one["ctx"]["expected"]
            for one in faults
            if one["loc"][: len(place)] == place and "ctx" in one
        ]
        valid = dict.fromkeys(re.findall(r"'([^']+)'", " ".join(expected)))
        return f"unknown key '{path.partition('.[key]')[0]}'{nearest(str(place[-1]), valid)}"
    value = fault["input"]
    if isinstance(value, (dict, list)) and len(value) > MAX_VALUES_SHOWN:
        found = f"{type(value).__name__} of {len(value):,}"
    else:
        try:
            found = one_line(repr(value), 120)
        except ValueError:  # Python limits the digits of integers that are converted
            found = "a number of thousands of digits"
    return f"'{path}': {one_line(fault['msg'].lower(), 160)}, found {found}"


def _valid_keys(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    # follow the path of the error through nested sections
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = {
                field.alias or name: field.annotation for name, field in kind.model_fields.items()
            }.get(str(part))
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        kind = next(
            (one for one in get_args(kind) if isinstance(one, type) and issubclass(one, Section)),
            kind,
        )
    if not (isinstance(kind, type) and issubclass(kind, Section)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


class Part(Section):
    """Part of a release's JSON files."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def read(cls, path: Path, max_bytes: int) -> Self:
        """Read an untrusted file; UserError names the first invalid key."""
        try:
            return cls.model_validate(io.read_json(path, max_bytes))
        except ValidationError as e:
            raise UserError(f"{path}: {first_fault(e, cls)}; {io.made_by(path)}") from None
