"""Hostile text and addresses: cleaned in linear time, or a reject."""

import time

import orjson
import pytest

from pipeline.items.build import merge
from pipeline.items.parse import LONGEST_TEXT, Line, Parsed, Reject, clean, read
from pipeline.sources.amazon import Reader2018
from pipeline.sources.product import Product

SIZE = 300_000  # characters: quadratic time would be hours
TEXTS = {
    "scripts that do not end": "<script ",
    "scripts": "<script>",
    "styles that do not end": "<style ",
    "ends of styles": "</style ",
    "tags that do not end": "<a ",
    "ends of tags": "</a ",
    "brackets": "<",
    "comments": "<!--",
    "attributes": 'a="b" ',
    "attributes in single quotes": "a='b'",
    "attributes that do not end": 'a="',
    "names with colons": "a:",
    "names with hyphens": "a-",
    "quotes": "\"  '",
    "ampersands": "&",
    "entities": "&amp;lt;",
    "marks": "\u0301\u0316",
    "marks of one class": "\u0301",
    "jamos": "\u1100\u1161",
    "emoji": "🎈",
    "blanks": " \u00a0",
}


@pytest.mark.parametrize("part", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("before", ["", "<a "], ids=["text", "in a tag"])
def test_text_is_cleaned_in_time_that_grows_with_it(part: str, before: str) -> None:
    start = time.process_time()
    clean(before + "<x>" * bool(before) + part * (SIZE // len(part)))
    assert time.process_time() - start < 10


def test_lines_of_one_item_that_each_add_a_field_take_time_that_grows_with_them() -> None:
    start = time.process_time()
    item = Product("", "", [], "", [], {})
    for number in range(100_000):  # quadratic time would be hours
        item = merge(item, Product("", "", [], "", [], {f"field{number}": "1"}))
    assert len(item.extra) == 100_000
    assert time.process_time() - start < 10


REJECTS = {
    "too much text": ({"title": "t " * LONGEST_TEXT}, "text of more than 1,048,576 characters"),
    "too much text in parts": ({"description": ["t" * 1000] * 1100}, "text of more than 1,048,576 characters"),
    "a character of 5,000 digits": ({"title": f"&#{'9' * 5000};"}, "Exceeds the limit"),
}


@pytest.mark.parametrize(("fields", "reason"), REJECTS.values(), ids=REJECTS)
def test_an_item_that_cannot_be_cleaned_is_a_reject(fields: dict, reason: str) -> None:
    outcome = read(Line(1, orjson.dumps({"asin": "A", **fields})), Reader2018(), {"A"})
    assert isinstance(outcome, Reject)
    assert outcome.reason.startswith(reason)
    assert len(outcome.reason) < 200


def test_addresses_without_end_are_cut() -> None:
    urls = [f"http://e/{i}.jpg" for i in range(5000)]
    outcome = read(Line(1, orjson.dumps({"asin": "A", "imageURL": urls})), Reader2018(), {"A"})
    assert isinstance(outcome, Parsed)
    assert outcome.product.image_urls == urls[:1000]
