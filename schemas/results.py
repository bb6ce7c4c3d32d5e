"""Schemas of recommender results: metrics, slices, paired tests, rankings, the study."""

import pyarrow as pa

from alignrec.schemas.contract import USER_ID, field, schema

DATASET = field("dataset", pa.string(), "name in params.yaml")
SEED = field("seed", pa.int32(), "number of the run, from 0", low=0)
MODEL = field("model", pa.string(), "alignrec, lightgcn, bpr, vbpr, ...")
FEATURE_SET = field("features", pa.string(), "feature set, or `none` for models that only read ids")
ABLATION = field(
    "ablation", pa.string(), "key of `benchmark.ablations`; empty for the model as it is"
)
K = field("k", pa.int32(), "cutoff", low=1)

PROTOCOL = (
    field("protocol", pa.string(), "mmrec, strict, ...: name of the protocol"),
    field(
        "fingerprint",
        pa.string(),
        "of the protocol; figures of two fingerprints never share a column of a table",
    ),
)
RUN = (DATASET, MODEL, FEATURE_SET, ABLATION, SEED, *PROTOCOL)

RESULTS = schema(
    *RUN,
    field("split", pa.string(), "where it was measured", one_of=("valid", "test")),
    field(
        "metric", pa.string(), "what was measured", one_of=("recall", "ndcg", "precision", "map")
    ),
    K,
    field(
        "selected_by",
        pa.string(),
        "what chose the settings; the epoch is always valid's",
        one_of=("valid", "test"),
    ),
    field("value", pa.float64(), "mean over users with a target in the split", low=0, high=1),
)

SLICES = schema(
    *RUN,
    field(
        "slice",
        pa.string(),
        "users by length of history, or items by popularity",
        one_of=("history", "popularity"),
    ),
    field(
        "label",
        pa.string(),
        "history: train interactions (`3`, `4-5`, `20+`); popularity: tenth of the items, "
        "`1` the least popular, or `cold` for items that train lacks",
    ),
    field("n", pa.int64(), "test users of the slice; of popularity: targets", low=0),
    field(
        "metric",
        pa.string(),
        "mean over n",
        one_of=("recall", "ndcg"),
    ),
    K,
    field(
        "value",
        pa.float64(),
        "on test, epoch chosen on valid; null where n is 0",
        nullable=True,
        low=0,
    ),
)

TESTS = schema(
    DATASET,
    *PROTOCOL,
    *(
        field(f"{f.name}_{side}", f.type, f"run {side}: {f.metadata[b'doc'].decode()}")
        for side in "ab"
        for f in (MODEL, FEATURE_SET, ABLATION)
    ),
    RESULTS.field("metric"),
    K,
    field(
        "seeds",
        pa.int32(),
        "runs of each over which a user's figure was averaged before the test",
        low=1,
    ),
    field("n", pa.int64(), "test users, the pairs of the test", low=1),
    field("mean_a", pa.float64(), "of run a, on test"),
    field("mean_b", pa.float64(), "of run b, on test"),
    field("difference", pa.float64(), "mean_a - mean_b"),
    field(
        "low",
        pa.float64(),
        "95 % interval of the difference: paired bootstrap over users, percentiles",
    ),
    field("high", pa.float64(), "its other end"),
    field("p", pa.float64(), "two-sided, of the paired bootstrap", low=0, high=1),
    field("p_holm", pa.float64(), "p corrected (Holm) for all rows of this table", low=0, high=1),
)

TUNING = schema(
    MODEL,
    FEATURE_SET,
    field(
        "trial",
        pa.int32(),
        "number of the setting, from 0; the first is the setting as given",
        low=0,
    ),
    field("state", pa.string(), "how it ended", one_of=("complete", "failed")),
    field("setting", pa.string(), "JSON: key of the model's settings -> value"),
    field("epochs", pa.int32(), "trained", low=0),
    field(
        "valid", pa.float64(), "valid Recall@20; null if it failed", nullable=True, low=0, high=1
    ),
    field(
        "chosen",
        pa.bool_(),
        "whether the benchmark runs with it: best valid, the first of equal ones",
    ),
    field("reason", pa.string(), "why it failed; else empty"),
)


def rankings(k: int) -> pa.Schema:
    kind = pa.list_(pa.field("element", pa.int32(), nullable=False), k)
    return schema(
        USER_ID, field("items", kind, f"item_id[{k}], best first; -1 where the catalogue ran out")
    )


BEST_EPOCH = field(
    "best_epoch", pa.int32(), "first epoch of best valid Recall@20, counted from 0", low=0
)
DIFFERENCE = (
    field(
        "difference",
        pa.float64(),
        "a - b; null where there is nothing to compare with",
        nullable=True,
    ),
    field(
        "low",
        pa.float64(),
        "95 % interval of the difference: paired bootstrap, percentiles",
        nullable=True,
    ),
    field("high", pa.float64(), "its other end", nullable=True),
    field("p", pa.float64(), "two-sided, of the paired bootstrap", nullable=True, low=0, high=1),
    field(
        "p_holm",
        pa.float64(),
        "p corrected (Holm) for all rows of this table",
        nullable=True,
        low=0,
        high=1,
    ),
)
MASK = schema(
    DATASET,
    FEATURE_SET,
    field(
        "modality",
        pa.string(),
        "what is hidden; nothing at ratio 0",
        one_of=("nothing", "image", "text"),
    ),
    field("ratio", pa.float64(), "share of items whose modality is hidden", low=0, high=1),
    SEED,
    *PROTOCOL,
    field(
        "recall@20",
        pa.float64(),
        "on test, at the best valid epoch; mean over users",
        low=0,
        high=1,
    ),
    BEST_EPOCH,
)

TAIL = schema(
    DATASET,
    *PROTOCOL,
    field("slice", pa.string(), "what the groups are of", one_of=("popularity", "history")),
    field(
        "label",
        pa.string(),
        "popularity: tenth of the items, `1` the least popular, "
        "thirds (`head`, `middle`, `tail`) where tenths are too thin, or `cold`; "
        "history: train interactions of the user (`3`, `4-5`, `20+`)",
    ),
    MODEL,
    FEATURE_SET,
    K,
    field("seeds", pa.int32(), "runs over which a figure was averaged before the test", low=1),
    field(
        "n", pa.int64(), "pairs of the test: targets of popularity, test users of history", low=1
    ),
    field("mean", pa.float64(), "recall on test, mean over n", low=0, high=1),
    field(
        "mean_low",
        pa.float64(),
        "95 % interval of the mean: bootstrap over n, percentiles",
        low=0,
        high=1,
    ),
    field("mean_high", pa.float64(), "its other end", low=0, high=1),
    *DIFFERENCE,
)

SWEEPS = schema(
    DATASET,
    field("sweep", pa.string(), "key of `study.sweeps`"),
    FEATURE_SET,
    field("setting", pa.string(), "JSON: key (`train.lr`, `graph.k`) -> value"),
    SEED,
    *PROTOCOL,
    field("recall@20", pa.float64(), "on valid; null if it failed", nullable=True, low=0, high=1),
    BEST_EPOCH,
    field("reason", pa.string(), "why it failed; else empty"),
)

STUDY = {"mask": MASK, "tail": TAIL, "sweeps": SWEEPS}
