"""JSON files that a folder of features or a release describes itself by, which are not trusted."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import io
from pipeline.errors import UserError, one_line


class Part(BaseModel):
    """A closed, typed, read-only part of a release's JSON files."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @classmethod
    def read(cls, path: Path, max_bytes: int) -> Self:
        """Read an untrusted file; UserError names the first key that breaks the schema."""
        try:
            return cls.model_validate(io.read_json(path, max_bytes))
        except ValidationError as e:
            raise UserError(f"{path}: {first_fault(e)}; fetch the release again") from None


def first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    where = one_line(".".join(map(str, fault["loc"])) or "the file", 64)
    return f"'{where}': {one_line(fault['msg'].lower(), 160)}"
