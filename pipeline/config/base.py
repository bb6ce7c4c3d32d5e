"""What every section of params.yaml is, and the kinds of values that it holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Mirrors = Annotated[
    list[str], Field(min_length=1), BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]
"""addresses of one file, tried in order: URLs (http, https, file) or paths; one may stand without brackets"""


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values are not coerced, instances are read-only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
