"""Base class of the sections of params.yaml, types of their values, and error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alignrec.pipeline.errors import UserError, one_line

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
# addresses of one file, tried in order: URLs (http, https, file) or paths; a single one needs no list
Mirrors = Annotated[
    list[Address], Field(min_length=1), BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)
]


class Section(BaseModel):
    """A section of params.yaml. Unknown keys are errors, values are not coerced, instances are immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    speed: ClassVar[frozenset[str]] = frozenset()
    """keys that affect run time but not results"""

    def facts(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(self.speed))

    def resolved(self) -> Section:
        return self


LONGEST_NAME = 64  # characters of a name that are compared
MOST_SHOWN = 20  # values of a list or mapping in a message

Kind = TypeVar("Kind", bound=Section)


def checked(kind: type[Kind], raw: Any, where: str = "") -> Kind:
    """Validate parsed YAML as a section; UserError names the first error, with `where` as the path of the section."""
    try:
        return kind.model_validate(raw)
    except ValidationError as e:
        raise UserError(_first_fault(e, kind, where)) from None


def known(names: Iterable[str], among: Iterable[str], where: str) -> None:
    """Raise UserError for a name that is not `among` the known ones, and suggest the nearest."""
    for name in names:
        if name not in among:
            raise UserError(f"'{where}': no '{one_line(name, 64)}'{nearest(name, among)}")


def nearest(name: str, among: Iterable[str]) -> str:
    among = list(among)
    similar = difflib.get_close_matches(name[:LONGEST_NAME], among, n=1, cutoff=0.6)
    return f"; did you mean '{similar[0]}'?" if similar else f"; valid: {', '.join(among)}" if among else ""


def _first_fault(error: ValidationError, kind: type[Section], where: str) -> str:
    # report unknown keys first: a missing key may be misspelt
    faults = error.errors()
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    path = one_line(".".join([where] * bool(where) + [str(part) for part in fault["loc"]]), 120) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{path}'{nearest(str(fault['loc'][-1]), _valid_keys(kind, fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"'{path}' is required"
    return f"'{path}': {one_line(fault['msg'].lower(), 160)}, found {_describe_value(fault['input'])}"


def _describe_value(value: Any) -> str:
    if isinstance(value, (dict, list)) and len(value) > MOST_SHOWN:
        return f"{type(value).__name__} of {len(value):,}"
    try:
        return one_line(repr(value), 120)
    except ValueError:  # Python limits the digits of integers that are converted
        return "a number of thousands of digits"


def _valid_keys(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    # follow the path of the error through nested sections
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}[str(part)]
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        kind = next((one for one in get_args(kind) if isinstance(one, type) and issubclass(one, Section)), kind)
    if not (isinstance(kind, type) and issubclass(kind, Section)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]
