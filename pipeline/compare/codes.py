"""`alignrec compare --codes`: semantic IDs side by side, of feature sets that are coded here, and of third-party files.

I items, n of them with codes, L levels, K codes a level.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import schemas
from pipeline import io
from pipeline.compare import codes_file, feature_set, similarity
from pipeline.compare.codes_file import Given, holds_codes
from pipeline.compare.command import items_of
from pipeline.compare.feature_set import FeatureSet
from pipeline.compare.similarity import NEIGHBOURS
from pipeline.config.base import known
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.probe import sampled
from pipeline.report import codes as facts
from pipeline.report import comparison as compared
from pipeline.report.codes import AS_IT_IS, Judged
from pipeline.report.outputs import Outputs
from pipeline.report.page import sides
from pipeline.report.plots import Section
from pipeline.seeds import seed_for
from pipeline.semantic_ids import build, judge
from pipeline.semantic_ids.base import Method, Vectors
from pipeline.semantic_ids.params import SemanticIds
from pipeline.semantic_ids.quality import Codes, Edges
from pipeline.semantic_ids.registry import METHODS

CONTROL = "random"


def compare(layout: Layout, params: Parameters, specs: Sequence[str], methods: Sequence[str], seeds: int, to: Path,
            order: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """Judge semantic IDs of one dataset, and write compare.json and index.html.

    Args:
        layout: of a dataset whose interactions stage has run.
        specs: files of codes, or feature sets, see feature_set.read.
        methods: what codes the feature sets, next to random codes.
        seeds: codebooks per method and set.
        order: see feature_set.read.

    Returns:
        compare.json: dataset, sources, and codes: rows of features, method, quality and seed.

    Raises:
        UserError: see feature_set.read; or no such method, or a file of malformed codes.
    """
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    _check(specs, methods)
    given = [codes_file.read(s, asins) if holds_codes(s) else feature_set.read(s, layout, asins, order) for s in specs]
    by_name = dict(zip(feature_set.distinct_names([g.name for g in given]), given, strict=True))
    paths = items_of(layout, asins)["categories"].to_pylist()
    judges, neighbours_of = _judges(layout, params, by_name, paths)
    jobs = [(name, by, n) for name, g in by_name.items() for by, n in _draws(g, methods, seeds)]
    rows = []
    for name, by, n in tqdm(jobs, unit="set", disable=None):
        ids, method = _coded(by_name[name], by, params, seed_for("compare", layout.dataset, "codes", by, n), paths)
        rows.append(Judged(name, by, judges[name].judged(ids, method), n)._asdict())
    sources = {name: g.source for name, g in by_name.items()}
    comparison = {"dataset": layout.dataset, "sources": sources, "neighbours_of": neighbours_of, "codes": rows}
    _write(Outputs(layout, params.source(layout.dataset).kind), comparison, to)
    return comparison


def _write(outputs: Outputs, comparison: Mapping[str, Any], to: Path) -> None:
    io.write_json(to / "compare.json", comparison)
    tables = [compared.sources(comparison), *facts.tables(facts.compared(comparison))]
    parts = [Section("judged", "Judged", "Judged", tables=tables)]
    names = " · ".join(comparison["sources"])
    text = sides("compare", outputs.layout.dataset, names, parts, kind=outputs.kind)
    io.write_bytes(to / "index.html", text.encode())


def _check(specs: Sequence[str], methods: Sequence[str]) -> None:
    features = next((s for s in specs if not holds_codes(s)), None)
    if not methods and features is not None:
        raise UserError(f"'{features}' holds features, not codes; say how to code it: --codes {next(iter(METHODS))}")
    known(methods, METHODS, "--codes")


def _judges(
    layout: Layout, params: Parameters, by_name: Mapping[str, FeatureSet | Given], paths: list[list[str]]
) -> tuple[dict[str, judge.Judge], str | None]:
    """Return the judge of each set, and the first feature set: its neighbours judge files of codes."""
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    near = {name: sample_edges(g.vectors) for name, g in by_name.items() if isinstance(g, FeatureSet)}
    first = next(iter(near), None)
    probed = len(paths) <= params[SemanticIds].probed_items
    judges = {}
    for name, g in by_name.items():
        vectors = g.vectors if probed and isinstance(g, FeatureSet) else None
        edges = near.get(name, near[first] if first else [])
        judges[name] = judge.against(interactions, paths, edges, vectors, seed_for("compare", layout.dataset, "codes"))
    return judges, first


def _draws(given: FeatureSet | Given, methods: Sequence[str], seeds: int) -> list[tuple[str, int]]:
    if isinstance(given, Given):
        return [(AS_IT_IS, 0)]
    return [(by, n) for by in dict.fromkeys([*methods, CONTROL]) for n in range(seeds)]


def _coded(
    given: FeatureSet | Given, by: str, params: Parameters, seed: int, paths: list[list[str]]
) -> tuple[Codes, Method | None]:
    if isinstance(given, Given):
        return given.codes, None
    section = params[SemanticIds]
    units, directed = unit_rows(given.vectors)
    x = units[directed]
    if not len(x):
        raise UserError(f"{given.name}: no item has a nonzero vector to code")
    drawn = np.random.default_rng(seed).choice(len(x), min(len(x), section.fit_rows), replace=False)
    blocks = lambda: (x[at : at + build.ROWS] for at in range(0, len(x), build.ROWS))  # noqa: E731
    vectors = Vectors(blocks, len(x), x[np.sort(drawn)], [paths[i] for i in np.flatnonzero(directed)])
    method = METHODS[by].fit(vectors, build.shape(section), build.settings(section, by), seed)
    own = build.coded(method, vectors, section.collisions)
    return Codes(np.flatnonzero(directed), own.codes, section.codes, own.suffix, own.assigned, own.cosines), method


def sample_edges(vectors: np.ndarray) -> Edges:
    """Return (items, neighbours) in one block; of a large catalogue, a sample of items."""
    rows = sampled.rows(len(vectors), seed_for("compare", "neighbours"))
    others = similarity.neighbours(vectors, min(NEIGHBOURS, len(vectors) - 1), rows)
    return [(np.repeat(rows, others.shape[1]), others.reshape(-1))]
