"""Arrow schemas of all tables; each field documents its content, unit and shape, and `check` validates tables."""
# ruff: noqa: I001

from alignrec.schemas.contract import ContractError, check, field, vector
from alignrec.schemas.feature_sets import (
    EDGES, codes, features, item_embeddings, numbered_user_embeddings, semantic_ids, user_embeddings,
)  # fmt: skip
from alignrec.schemas.interactions import (
    COLD_ITEMS, INTERACTIONS, ITEM_IDS, SPARSE, TEST, TRAIN, USERS, VALID, has_own_split, read_clock, read_division,
)  # fmt: skip
from alignrec.schemas.items import (
    IMAGE_STATUSES, IMAGES, ITEMS, PLANTED, REJECTS, RELEASED_ITEMS, embedded_items, text_fields,
)  # fmt: skip
from alignrec.schemas.results import (
    MASK, RESULTS, SLICES, STUDY, SWEEPS, TAIL, TESTS, TUNING, ranking, rankings,
)  # fmt: skip
