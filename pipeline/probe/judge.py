"""The figures of the stage: every probe of every encoded feature set, raw and processed, and verdicts on pairs."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline import io
from pipeline.combine import mapped
from pipeline.combine.names import learns, relearns
from pipeline.layout import Layout
from pipeline.probe import asking, forms, verdicts
from pipeline.probe.base import Data, Relearned
from pipeline.probe.params import Probe
from pipeline.run import Run


def judge_sets(run: Run, data: Data, names: Sequence[str], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    params, layout, learned = run.params[Probe], run.layout, data.relearned
    probes, processing = asking.ask(data), forms.Processing(forms.ask(data), params.width)

    def shown(sets: Iterable[tuple[str, np.ndarray]]) -> Iterable[tuple[str, np.ndarray]]:
        return run.progress(sets, total=len(names), unit="set")

    raw = asking.answers(probes, shown(_read_sets(layout, names)), params.ks, learned)
    sets = shown(processing.sets(_read_sets(layout, names)))
    processed = asking.answers(probes, sets, params.ks, processing.relearned(learned))
    return asking.summaries(probes, raw, params.ks, learned) | {
        "processed": asking.processed(probes, processed, params.ks, processing.facts()),
        "verdicts": verdicts.verdicts(raw, processed, pairs, params.ks, run.seed("verdicts")),
        "learned": sorted(learned),
    }


def _read_sets(layout: Layout, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        yield name, io.map_features(layout.features(name))


def relearned(run: Run, names: Sequence[str]) -> dict[str, Relearned | None]:
    """Return feature set that learned from interactions -> what refits it without cold items; None: it cannot be."""
    params, again = run.params, partial(mapped.relearn, run.layout)
    learned = [name for name in names if learns(params, run.dataset, name)]
    return {name: partial(again, name) if relearns(params, run.dataset, name) else None for name in learned}
