"""probe: feature sets judged without a recommender, raw and processed -> probes.json."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

import schemas
from pipeline import io
from pipeline.combine.names import feature_sets, is_ceiling, learns, relearns
from pipeline.combine.params import Combine
from pipeline.layout import Layout
from pipeline.probe.base import Data, Relearned
from pipeline.probe.params import Probe
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.stage import FEATURE_SETS, Stage
from pipeline.train.params import Released
from stages.combine import FEATURES
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from pipeline.probe import asking, forms, verdicts  # load SciPy

    params, layout = run.params[Probe], run.layout
    interactions = run.read(layout.interactions, schemas.INTERACTIONS)
    items = len(run.read(layout.item_ids, schemas.ITEM_IDS))
    names = [name for name in feature_sets(run.params, run.dataset) if name in layout.feature_sets()]
    data = Data(interactions, items, _relearned(run, names))
    probes = asking.ask(data)
    processing = forms.Processing(forms.ask(data), params.width)
    raw, processed = (
        asking.answers(probes, run.progress(sets, total=len(names), unit="set"), params.ks, learned)
        for sets, learned in (
            (_sets(layout, names), data.relearned),
            (processing.sets(_sets(layout, names)), processing.relearned(data.relearned)),
        )
    )
    figures = asking.summaries(probes, raw, params.ks, data.relearned)
    figures["processed"] = asking.processed(probes, processed, params.ks, processing.facts())
    ours = run.params[Released].features
    rivals = [name for name in names if not is_ceiling(run.params[Combine].sets, name)]
    pairs = [(ours, name) for name in rivals if name != ours]
    figures["verdicts"] = verdicts.verdicts(raw, processed, pairs, params.ks, run.seed("verdicts"))
    figures["learned"] = sorted(data.relearned)

    io.write_json(layout.probes, figures)
    io.keep_only(run.folder, [layout.probes])
    run.rows_in = run.rows_out = len(names)


def _sets(layout: Layout, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        yield name, io.map_features(layout.features(name))


def _relearned(run: Run, names: Sequence[str]) -> dict[str, Relearned | None]:
    learned = [name for name in names if learns(run.params, run.dataset, name)]
    if not learned:
        return {}
    from pipeline.combine import mapped  # loads SciPy

    again = partial(mapped.relearn, run.layout)
    return {name: partial(again, name) if relearns(run.params, run.dataset, name) else None for name in learned}


PROBE = Stage(
    "probe",
    does="feature sets judged without a recommender",
    writes="`probes.json`: feature sets judged before any training",
    reads=(INTERACTIONS, *FEATURES),
    sections=("train", *FEATURE_SETS),
    params=Probe,
    main=main,
    loads=(PROBES,),
)
