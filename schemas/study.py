"""Tables of the study: mask modality, the long tail, variants, sweeps, wrong content, losses."""

import pyarrow as pa

from schemas.contract import field
from schemas.results import FEATURE_SET, MODEL, PROTOCOL, RUN, K

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
RETRAINED = (
    K,
    field("seeds", pa.int32(), "trainings", low=1),
    field("n", pa.int64(), "test users", low=1),
    field("mean", pa.float64(), "recall on test, mean over trainings", low=0, high=1),
    field("sd", pa.float64(), "over trainings, n - 1; null for one", nullable=True, low=0),
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

VARIANTS = pa.schema(
    [
        DATASET,
        field("variant", pa.string(), "key of `study.variants`; `recipe`: the parameters as they stand"),
        field("encoder_seed", pa.int32(),
            "`pretrain.seed` of the variant's encoder; null: of all its encoders together, or of a set that has none",
            nullable=True),
        field("what", pa.string(), "key of the probe in probes.json, or `alignrec`"),
        FEATURE_SET,
        field("form", pa.string(), "how a probe read the features", one_of=("raw", "processed")),
        field("metric", pa.string(), "hit, recall, ...: as the probe names it"),
        K,
        field("seeds", pa.int32(), "figures that the mean is of: trainings of AlignRec, encoders of a probe", low=1),
        field("n", pa.int64(), "users or items of the test; null where nothing is tested", nullable=True, low=1),
        *PROTOCOL,
        field("mean", pa.float64(), "on test; mean over seeds", low=0, high=1),
        field("sd", pa.float64(), "over seeds, n - 1; null for one", nullable=True, low=0),
        field("difference", pa.float64(),
            "mean - that of `recipe`: on beit3 as released, also of beit3-raw; on the same set where one is masked",
            nullable=True),
        *DIFFERENCE[1:-1],
        field("p_holm", pa.float64(),
            "p corrected (Holm) for all rows of AlignRec, or those of the probes of equal `features` and `form`",
            nullable=True, low=0, high=1),
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

WRONG = pa.schema(
    [
        DATASET,
        MODEL,
        FEATURE_SET,
        field("what", pa.string(), "what is wrong: the image or text is another item's, or the vector is noise",
            one_of=("nothing", "image", "text", "noise")),
        field("ratio", pa.float64(), "share of items whose content is wrong", low=0, high=1),
        *PROTOCOL,
        *RETRAINED,
        field("difference", pa.float64(), "mean - that of the same model on the whole set", nullable=True),
        *DIFFERENCE[1:],
    ]
)  # fmt: skip

GEOMETRY = pa.schema(
    [
        DATASET,
        FEATURE_SET,
        field(
            "without", pa.string(), "weight of AlignRec that is 0, or nothing", one_of=("nothing", "cca", "reg", "uia")
        ),
        SEED,
        *PROTOCOL,
        field("epoch", pa.int32(), "after which it was measured, from 0", low=0),
        field("recall@20", pa.float64(), "on valid", low=0, high=1),
        field("id_rank", pa.float64(), "effective rank of the items' ID vectors, centred", low=0.999),
        field("content_rank", pa.float64(), "likewise of their content vectors", low=0.999),
        field("id_energy", pa.float64(), "share of their squared length in one direction, ID", low=0, high=1),
        field("content_energy", pa.float64(), "likewise of the content vectors", low=0, high=1),
        field("content_id", pa.float64(), "mean cosine of an item's content and ID vectors", low=-1.001, high=1.001),
        field("user_item", pa.float64(), "mean cosine of a user and an item that train has", low=-1.001, high=1.001),
        field("kept", pa.float64(), "linear CKA of the content vectors with the features as given", low=0, high=1.001),
        BEST_EPOCH,
    ]
)  # fmt: skip

_VARIANT = (
    field("variant", pa.string(), "what the encoder learns from", one_of=("staged", "without pre-training", "joint")),
    field(
        "rate", pa.float64(), "learning rate of the encoder, a share of AlignRec's; 0: its features are given", low=0
    ),
)
_PROBED = tuple(
    field(name, pa.float64(), f"{name}, hit@20 of the processed features; null if it has no questions", nullable=True,
          low=0, high=1)
    for name in ("zero_shot", "item_cf", "content_knn")
)  # fmt: skip

JOINT = pa.schema(
    [
        DATASET,
        *_VARIANT,
        *PROTOCOL,
        *RETRAINED,
        field("difference", pa.float64(), "mean - that of `staged`", nullable=True),
        *DIFFERENCE[1:],
        *_PROBED,
        field("best_epoch", pa.float64(), "epoch of best valid Recall@20, counted from 0; mean over trainings", low=0),
    ]
)

JOINT_EPOCHS = pa.schema(
    [
        DATASET,
        *_VARIANT,
        SEED,
        *PROTOCOL,
        field("epoch", pa.int32(), "after which it was measured, from 0", low=0),
        field("recall@20", pa.float64(), "best on valid so far", low=0, high=1),
        *_PROBED,
    ]
)

STUDY = {
    "mask": MASK, "tail": TAIL, "variants": VARIANTS, "sweeps": SWEEPS,
    "wrong": WRONG, "geometry": GEOMETRY,
    "joint": JOINT, "joint_epochs": JOINT_EPOCHS,
}  # fmt: skip
