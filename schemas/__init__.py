"""Every table of the pipeline as an Arrow schema, one file a group of tables.

Each column documents its content, unit and shape. `check` validates a table against its schema.
"""

from schemas.contract import ContractError, check, field, vector
from schemas.embeddings import item_embeddings, numbered_user_embeddings, user_embeddings
from schemas.feature_sets import TRIED, features
from schemas.graph import EDGES
from schemas.images import IMAGE_STATUSES, IMAGES
from schemas.interactions import (
    COLD_ITEMS,
    INTERACTIONS,
    ITEM_IDS,
    SPARSE,
    TEST,
    TRAIN,
    USERS,
    VALID,
    clock,
    division,
    has_own_split,
    provenance,
)
from schemas.items import ITEMS, REJECTS, text_fields
from schemas.release import RELEASED_ITEMS, embedded, features_half
from schemas.results import LEAGUE, RESULTS, SLICES, TESTS, TUNING, ranking, rankings, trials
from schemas.semantic_ids import codes, semantic_ids
from schemas.study import (
    GENERATIVE,
    GENERATIVE_TESTS,
    GEOMETRY,
    JOINT,
    JOINT_EPOCHS,
    MASK,
    STUDY,
    SWEEPS,
    TAIL,
    VARIANTS,
    WRONG,
)

__all__ = [
    "COLD_ITEMS",
    "EDGES",
    "GENERATIVE",
    "GENERATIVE_TESTS",
    "GEOMETRY",
    "IMAGES",
    "IMAGE_STATUSES",
    "INTERACTIONS",
    "ITEMS",
    "ITEM_IDS",
    "JOINT",
    "JOINT_EPOCHS",
    "LEAGUE",
    "MASK",
    "REJECTS",
    "RELEASED_ITEMS",
    "RESULTS",
    "SLICES",
    "SPARSE",
    "STUDY",
    "SWEEPS",
    "TAIL",
    "TEST",
    "TESTS",
    "TRAIN",
    "TRIED",
    "TUNING",
    "USERS",
    "VALID",
    "VARIANTS",
    "WRONG",
    "ContractError",
    "check",
    "clock",
    "codes",
    "division",
    "embedded",
    "features",
    "features_half",
    "field",
    "has_own_split",
    "item_embeddings",
    "numbered_user_embeddings",
    "provenance",
    "ranking",
    "rankings",
    "semantic_ids",
    "text_fields",
    "trials",
    "user_embeddings",
    "vector",
]
