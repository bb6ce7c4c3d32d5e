"""Arrow schemas of all tables; each field documents its content, unit and shape, and `check` validates tables."""
# ruff: noqa: I001

from alignrec.schemas.contract import ContractError, check, field, vector
from alignrec.schemas.feature_sets import (
    EDGES, codes, features, item_embeddings, numbered_user_embeddings, semantic_ids, user_embeddings,
)  # fmt: skip
from alignrec.schemas.interactions import (
    COLD_ITEMS, INTERACTIONS, ITEM_IDS, SPARSE, TEST, TRAIN, USERS, VALID, clock, division, has_own_split, provenance,
)  # fmt: skip
from alignrec.schemas.items import IMAGE_STATUSES, IMAGES, ITEMS, PLANTED, REJECTS, text_fields
from alignrec.schemas.release import RELEASED_ITEMS, embedded
from alignrec.schemas.results import RESULTS, SLICES, TESTS, TUNING, ranking, rankings
from alignrec.schemas.study import MASK, STUDY, SWEEPS, TAIL
