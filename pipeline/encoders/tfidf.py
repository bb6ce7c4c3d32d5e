"""Text baseline: TF-IDF reduced by truncated SVD (n texts, T terms, F components)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy import sparse
from torch import Tensor

from alignrec.pipeline import io
from alignrec.pipeline.encoders.chunks import Reading
from alignrec.pipeline.encoders.registry import Catalogue, NothingToFit, Spec
from alignrec.pipeline.encoders.settings import TfidfParams
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.linalg.projections import right_vectors
from alignrec.pipeline.runtime.seeds import seed_for

WORDS, COMPONENTS = (
    "words.json",
    "tfidf.safetensors",
)  # terms in order; their IDF weights and components
# letters and vowel signs of scripts without spaces: Thai, Lao, Burmese, Khmer, kana and Han
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f"
    "\u109a-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd"
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U000323af"
)
# a run of such characters, or of more Hangul syllables than a Korean word has; otherwise a word
RUN = re.compile(f"([{UNSPACED}]+|[\uac00-\ud7a3]{{9,}})|[^\\W{UNSPACED}]{{2,}}")
MIN_DF = 2  # minimum number of texts that contain a term
MAX_TERMS, MAX_FITTED = 50_000, 20_000  # terms, and texts to fit the SVD on; both bound memory
LARGEST = 1 << 26  # maximum bytes of words.json in a release


class Tfidf:
    """Terms in order, IDF weights, float64 [T], and components, float64 [T, F]."""

    def __init__(self, terms: Sequence[str], idf: np.ndarray, components: np.ndarray) -> None:
        self._number, self._idf, self._components = (
            {term: i for i, term in enumerate(terms)},
            idf,
            components,
        )
        self.width = components.shape[1]

    def reading(self, texts: Sequence[str]) -> Reading:
        there = np.array([len(split_terms(text)) for text in texts], np.int64)
        return Reading(there, there, np.zeros_like(there))

    def prepare(
        self, images: Sequence[bytes] | None, texts: Sequence[str] | None
    ) -> sparse.csr_array:
        return weigh_terms(self._number, self._idf, texts or [])

    def encode(self, prepared: sparse.csr_array) -> Tensor:
        return torch.from_numpy((prepared @ self._components).astype(np.float32))


def split_terms(text: str) -> list[str]:
    """Split into words, and runs of scripts without spaces into pairs of characters."""
    terms = list[str]()
    for found in RUN.finditer(text.lower()):
        run = found[0]
        terms += (
            [run] if found[1] is None else [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        )
    return terms


# implemented with SciPy: scikit-learn would add 30 MB
def count_terms(texts: Iterable[str]) -> tuple[dict[str, int], np.ndarray, int]:
    """Return terms with their numbers, smooth IDF weights, float64 [T], and the number of texts."""
    counts, total = Counter[str](), 0
    for text in texts:  # a loop, because words are strings
        counts.update(set(split_terms(text)))
        total += 1
    often = sorted((-df, word) for word, df in counts.items() if df >= MIN_DF)[:MAX_TERMS]
    df = np.array([-minus for minus, _ in often], np.float64)
    return {word: i for i, (_, word) in enumerate(often)}, np.log((1 + total) / (1 + df)) + 1, total


def weigh_terms(
    terms: Mapping[str, int],
    idf: np.ndarray,
    texts: Sequence[str],
) -> sparse.csr_array:
    """Return `(1 + ln tf) idf`, rows of length 1 or zero: float64 [n, T]."""
    rows, columns, frequency = [], [], []
    for row, text in enumerate(texts):
        counts = Counter(
            number for word in split_terms(text) if (number := terms.get(word)) is not None
        )
        rows += [row] * len(counts)
        columns += sorted(counts)
        frequency += [counts[number] for number in sorted(counts)]
    values = (1 + np.log(np.array(frequency, np.float64))) * idf[np.array(columns, np.int64)]
    length = np.sqrt(np.bincount(np.array(rows, np.int64), values**2, len(texts)))
    return sparse.csr_array(
        (values / length[rows], (rows, columns)), shape=(len(texts), len(terms))
    )


def fit_tfidf(catalogue: Catalogue, params: TfidfParams, folder: Path) -> None:
    """Fit terms to all texts, components to MAX_FITTED of them; raises UserError if no two texts
    share a word.
    """
    texts, seed = io.Texts(catalogue.items), seed_for("tfidf", catalogue.dataset, catalogue.seed)
    terms, idf, total = count_terms(filter(str.strip, texts))
    if not terms:
        raise NothingToFit(
            f"no word is in two texts of {catalogue.dataset}; leave tfidf out of encode.encoders"
        )
    sample = np.isin(np.arange(total), np.random.default_rng(seed).permutation(total)[:MAX_FITTED])
    weights = weigh_terms(terms, idf, list(compress(filter(str.strip, texts), sample)))
    components = np.ascontiguousarray(right_vectors(weights, params.width, seed), np.float32)
    io.write_json(folder / WORDS, list(terms))
    io.write_bytes(folder / COMPONENTS, save({"idf": idf, "components": components}))


def load_tfidf(folder: Path, params: TfidfParams) -> Tfidf:
    """Read untrusted files of `fit_tfidf`; raises UserError if they are damaged."""
    try:
        terms = io.read_json(folder / WORDS, LARGEST)
        arrays = load_file(io.require_plain(folder / COMPONENTS))
        idf, components = arrays["idf"].astype(np.float64), arrays["components"].astype(np.float64)
        sound = isinstance(terms, list) and all(isinstance(term, str) for term in terms)
        fits = (
            sound
            and idf.shape == (len(terms),)
            and components.ndim == 2
            and len(components) == len(terms)
        )
        if not fits or not np.isfinite(idf).all() or not np.isfinite(components).all():
            raise ValueError(f"{idf.shape} weights and {components.shape} components of the words")
    except (SafetensorError, OSError, KeyError, ValueError) as e:
        raise UserError(
            f"{folder}: no terms and components: {one_line(e, 100)}; make or fetch it again"
        ) from None
    return Tfidf(terms, idf, components)


TFIDF = Spec(load_tfidf, TfidfParams, reads=("text",), fit=fit_tfidf)
