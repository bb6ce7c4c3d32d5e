"""TF-IDF of the items' texts, reduced by truncated SVD: the control for words without a network.

Sublinear term frequency, smooth inverse document frequency, rows of length 1 (latent semantic analysis). Built
on SciPy: scikit-learn has it ready, but adds 30 MB.

n texts, T terms, F components.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as dump
from scipy import sparse
from torch import Tensor

from alignrec.pipeline import io
from alignrec.pipeline.config.base import Positive, Section
from alignrec.pipeline.encode.base import Catalogue, Spec
from alignrec.pipeline.encode.chunks import Reading
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.items.texts import Texts
from alignrec.pipeline.ops.linalg import right_vectors

WORD = re.compile(r"\w\w+")  # two letters or digits at least, in any script
MIN_DF = 2  # least number of texts with a term
WORDS, COMPONENTS = "words.json", "tfidf.safetensors"
"""files of a release: the terms in order; their IDF weights and the components"""
MOST_TERMS = 50_000  # most frequent terms that are kept; bounds memory
LARGEST = 1 << 26  # bytes of the words of a release
MOST = 20_000  # texts that the SVD is fitted to; bounds memory and time


class TfidfParams(Section):
    """Settings of kind `tfidf`."""

    width: Positive = 512
    """components at most, and no more than terms or texts"""


class Terms:
    """The terms of a catalogue and their IDF weights, float64 [T]."""

    def __init__(self, texts: Iterable[str]) -> None:
        counts = Counter[str]()
        self.texts = 0
        for text in texts:  # words have no array form
            counts.update(set(words(text)))
            self.texts += 1
        often = sorted((-df, word) for word, df in counts.items() if df >= MIN_DF)[:MOST_TERMS]
        self._number = {word: i for i, (_, word) in enumerate(often)}
        df = np.array([-minus for minus, _ in often], np.float64)
        self.idf = np.log((1 + self.texts) / (1 + df)) + 1  # [T]

    @classmethod
    def kept(cls, words: Sequence[str], idf: np.ndarray) -> Self:
        """Return the terms of another catalogue, given its words in order and their IDF weights, float64 [T]."""
        terms = cls([])
        terms._number, terms.idf = {word: i for i, word in enumerate(words)}, idf
        return terms

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)

    def weights(self, texts: Sequence[str]) -> sparse.csr_array:
        """Return `(1 + ln tf) idf`, rows of length 1 or zero: float64 [n, T]."""
        rows, columns, frequency = [], [], []
        for row, text in enumerate(texts):
            counts = Counter(number for word in words(text) if (number := self._number.get(word)) is not None)
            rows += [row] * len(counts)
            columns += sorted(counts)
            frequency += [counts[number] for number in sorted(counts)]
        values = (1 + np.log(np.array(frequency, np.float64))) * self.idf[np.array(columns, np.int64)]
        length = np.sqrt(np.bincount(np.array(rows, np.int64), values**2, len(texts)))
        return sparse.csr_array((values / length[rows], (rows, columns)), shape=(len(texts), len(self)))


class Tfidf:
    """Terms and their components, float64 [T, F]."""

    def __init__(self, terms: Terms, components: np.ndarray) -> None:
        self.terms, self.components = terms, components
        self.width = components.shape[1]

    def reading(self, texts: Sequence[str]) -> Reading:
        there = np.array([len(words(text)) for text in texts], np.int64)
        return Reading(there, there)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> sparse.csr_array:
        return self.terms.weights(texts or [])

    def encode(self, prepared: sparse.csr_array) -> Tensor:
        return torch.from_numpy((prepared @ self.components).astype(np.float32))


def fit(catalogue: Catalogue, params: TfidfParams, folder: Path) -> None:
    """Fit terms to all texts, components to MOST of them, and write them; UserError if no word is in two texts."""
    texts = Texts(catalogue.items)
    terms, seed = Terms(filter(str.strip, texts)), seed_for("tfidf", catalogue.dataset, catalogue.seed)
    sample = np.isin(np.arange(terms.texts), np.random.default_rng(seed).permutation(terms.texts)[:MOST])
    weights = terms.weights(list(compress(filter(str.strip, texts), sample)))
    if not len(terms):
        raise UserError(f"no word is in two texts of {catalogue.dataset}; leave tfidf out of encode.encoders")
    io.write_json(folder / WORDS, list(terms))
    components = np.ascontiguousarray(right_vectors(weights, params.width, seed), np.float32)
    io.write_bytes(folder / COMPONENTS, dump({"idf": terms.idf, "components": components}))


def load(folder: Path, params: TfidfParams) -> Tfidf:
    """Read what `fit` wrote, which is untrusted; UserError if it is damaged."""
    try:
        words, arrays = io.read_json(folder / WORDS, LARGEST), load_file(folder / COMPONENTS)
        idf, components = arrays["idf"], arrays["components"].astype(np.float64)
        sound = isinstance(words, list) and all(isinstance(word, str) for word in words)
        finite = np.isfinite(idf).all() and np.isfinite(components).all()
        shapes = sound and idf.shape == (len(words),) and components.shape[:-1] == idf.shape
        if not (finite and shapes):
            raise ValueError(f"{idf.shape} weights and {components.shape} components of the words")
    except (SafetensorError, OSError, KeyError, ValueError) as e:
        raise UserError(f"{folder}: no terms and components: {one_line(e, 100)}; make or fetch it again") from None
    return Tfidf(Terms.kept(words, idf.astype(np.float64)), components)


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


TFIDF = Spec(load, TfidfParams, reads=("text",), fit=fit)
