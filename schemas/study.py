"""Study tables: masked modalities, long tail, sweeps."""

import pyarrow as pa

from alignrec.schemas.contract import field
from alignrec.schemas.results import FEATURE_SET, MODEL, PROTOCOL, RUN, K

DATASET = RUN[0]
SEED = RUN[4]
BEST_EPOCH = field("best_epoch", pa.int32(), "first epoch of best valid Recall@20, counted from 0", low=0)
DIFFERENCE = (
    field("difference", pa.float64(), "a - b; null where there is nothing to compare with", nullable=True),
    field("low", pa.float64(), "95 % interval of the difference: paired bootstrap, percentiles", nullable=True),
    field("high", pa.float64(), "its other end", nullable=True),
    field("p", pa.float64(), "two-sided, of the paired bootstrap", nullable=True, low=0, high=1),
    field("p_holm", pa.float64(), "p corrected (Holm) for all rows of this table", nullable=True, low=0, high=1),
)
MASK = pa.schema(
    [
        DATASET,
        FEATURE_SET,
        field("modality", pa.string(), "what is hidden; nothing at ratio 0", one_of=("nothing", "image", "text")),
        field("ratio", pa.float64(), "share of items whose modality is hidden", low=0, high=1),
        SEED,
        *PROTOCOL,
        field("recall@20", pa.float64(), "on test, at the best valid epoch; mean over users", low=0, high=1),
        BEST_EPOCH,
    ]
)

TAIL = pa.schema(
    [
        DATASET,
        *PROTOCOL,
        field("slice", pa.string(), "what the groups are of", one_of=("popularity", "history")),
        field("label", pa.string(),
            "popularity: tenth of the items, `1` the least popular, thirds (`head`, `middle`, `tail`) where tenths "
            "are too thin, or `cold`; history: train interactions of the user (`3`, `4-5`, `20+`)"),
        MODEL,
        FEATURE_SET,
        K,
        field("seeds", pa.int32(), "runs over which a figure was averaged before the test", low=1),
        field("n", pa.int64(), "pairs of the test: targets of popularity, test users of history", low=1),
        field("mean", pa.float64(), "recall on test, mean over n", low=0, high=1),
        field("mean_low", pa.float64(), "95 % interval of the mean: bootstrap over n, percentiles", low=0, high=1),
        field("mean_high", pa.float64(), "its other end", low=0, high=1),
        *DIFFERENCE,
    ]
)  # fmt: skip

SWEEPS = pa.schema(
    [
        DATASET,
        field("sweep", pa.string(), "key of `study.sweeps`"),
        FEATURE_SET,
        field("setting", pa.string(), "JSON: key (`train.lr`, `graph.k`) -> value"),
        SEED,
        *PROTOCOL,
        field("recall@20", pa.float64(), "on valid; null if it failed", nullable=True, low=0, high=1),
        BEST_EPOCH,
        field("reason", pa.string(), "why it failed; else empty"),
    ]
)

STUDY = {"mask": MASK, "tail": TAIL, "sweeps": SWEEPS}
