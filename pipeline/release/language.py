"""Which languages the items' texts are in."""

from collections import Counter
from collections.abc import Iterator

from pipeline.items.texts import Texts

SAMPLE = 4000
"""items at most, in even steps over the catalogue"""
DOCUMENT = 1000
"""characters of the texts that are classified together: single titles are too short"""
SHARE = 0.1


def detect(texts: Texts) -> list[str]:
    """Return ISO 639-1 codes, the language of most documents first; nothing where no item has a text."""
    import py3langid  # a second, which other stages need not wait for

    found = Counter(py3langid.classify(document)[0] for document in _documents(texts))
    return [code for code, n in found.most_common() if n >= SHARE * found.total()]


def _documents(texts: Texts) -> Iterator[str]:
    step, joined, any_whole = max(1, -(-len(texts) // SAMPLE)), "", False
    for number, text in enumerate(texts):
        if number % step:
            continue
        joined += f"{text[:DOCUMENT]}\n" if text.strip() else ""
        if len(joined) >= DOCUMENT:
            yield joined
            joined, any_whole = "", True
    if joined and not any_whole:
        yield joined
