"""Cornac's TIGER on given semantic IDs. I items, N users, L codes per item."""

from importlib import import_module
from typing import Any

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.features.semantic_ids import code_items
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

SIZE = {  # smaller than published, so that two cores train it in minutes
    "d_model": 64, "d_ff": 256, "num_heads": 4, "d_kv": 16, "num_enc_layers": 2, "num_dec_layers": 2,
    "max_len": 10, "batch_size": 128,
}  # fmt: skip
BEAMS = 2 * CUTOFF  # as items that the user has bought are left out of the ranking


def import_library(module: str) -> Any:
    """Import a module of Cornac, which no extra installs; UserError without it."""
    try:
        return import_module(f"cornac.{module}")
    except ModuleNotFoundError as e:
        raise UserError(f"{e.name}: not installed; run `pip install cornac==3.0.1`") from None


def draw_histories(layout: Layout, n_users: int) -> list[list[int]]:
    """Return the distinct items of drawn users who bought three or more, in order of time."""
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS)
    if rows["timestamp"].null_count:
        raise UserError(f"{layout.interactions}: the source has no times, so there is no order")

    users, items, times = (rows[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    order = np.lexsort((items, times, users))
    starts = np.flatnonzero(np.diff(users[order]) > 0) + 1
    histories = [list(dict.fromkeys(part.tolist())) for part in np.split(items[order], starts)]

    long = [history for history in histories if len(history) > 2]
    rng = np.random.default_rng(seed_for("generate", layout.dataset))
    drawn = np.sort(rng.permutation(len(long))[:n_users])
    return [long[number] for number in drawn]


def code_all_items(layout: Layout, features: str, ids: SemanticIds, seed: int) -> np.ndarray:
    """Return the codes of all items, int64 [I, L]; zeros for items without content."""
    coding = code_items(layout.features(features), ids, seed)
    codes = np.zeros((len(coding.directed), ids.levels), np.int64)
    codes[coding.directed] = coding.codes
    return codes


def rank_items(
    codes: np.ndarray, ids: SemanticIds, histories: list[list[int]], epochs: int, seed: int
) -> list[np.ndarray]:
    """Train on histories without their last items; return all items by score, int64 [N][I]."""
    data, models = import_library("data"), import_library("models")

    class Coded(models.TIGER):  # type: ignore[name-defined]
        def _tokenize(self, torch: Any, features: Any) -> np.ndarray:
            return codes  # in place of codes of its own

    rows = []
    for user, history in enumerate(histories):
        rows += [(str(user), str(item), place) for place, item in enumerate(history[:-1])]
    places = {str(item): item for item in range(len(codes))}  # any can be generated
    sessions = data.SequentialDataset.build(rows, fmt="SIT", global_iid_map=places)
    sessions.item_feature = data.FeatureModality(features=codes, ids=[*places])

    sizes = {**SIZE, "rqvae_num_levels": ids.levels, "rqvae_codebook_size": ids.codes}
    model = Coded(**sizes, n_beams=BEAMS, n_epochs=epochs, seed=seed % 2**31, device="cpu")
    model.fit(sessions)
    return [np.argsort(-model.score(0, history[:-1]), kind="stable") for history in histories]


def hit_last_items(rankings: list[np.ndarray], histories: list[list[int]]) -> np.ndarray:
    """Return whether the last item is among the CUTOFF first that the user lacked, float64 [N]."""
    hits = []
    for ranking, history in zip(rankings, histories, strict=True):
        lacked = ranking[~np.isin(ranking, history[:-1])]
        hits.append(history[-1] in lacked[:CUTOFF])
    return np.array(hits, np.float64)
