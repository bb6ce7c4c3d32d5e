"""Identifiers are normalised equally by SQL and Python, for all of Unicode and numbers of any size."""

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alignrec.pipeline.sources.lines import json_object
from alignrec.pipeline.sources.sql import WHITE, identifier_of, strip_sql

# DuckDB takes a value that it is given as UTF-8, where surrogates are none
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from(f"{WHITE}\u200b\ufeff\0aé𝒳"))
DB = duckdb.connect()


def in_sql(text: str) -> str | None:
    return DB.execute(f"SELECT {strip_sql('t')} FROM (SELECT ?::VARCHAR AS t)", [text]).fetchall()[0][0]


@given(TEXT)
@example("A\u00a0")
@example("A\t")
@example("\u3000A\u3000")
@example("\u3000")
@example(" A b ")
@example("'A\x1f")
def test_sql_and_python_name_the_same(text: str) -> None:
    assert in_sql(text) == identifier_of(text)


@pytest.mark.parametrize(
    "number", ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890", "7"]
)
def test_numbers_of_any_size_stay_whole(number: str) -> None:
    assert identifier_of(json_object(f'{{"item": {number}}}'.encode())["item"]) == number
