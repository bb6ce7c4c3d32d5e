"""Arrow schemas of all tables, whose fields document content, unit and shape; `check` validates."""

from alignrec.schemas.contract import ContractError, check, field, provenance_of, vector
from alignrec.schemas.dataset import (
    COLD_ITEMS,
    IMAGE_STATUSES,
    IMAGES,
    INTERACTIONS,
    ITEM_IDS,
    ITEMS,
    REJECTS,
    RELEASED_ITEMS,
    SPARSE,
    TEST,
    TEXT_FIELDS,
    TRAIN,
    USERS,
    VALID,
    embedded_items,
    read_clock,
)
from alignrec.schemas.feature_sets import (
    EDGES,
    MODALITIES,
    VECTOR_TYPES,
    features,
    item_embeddings,
    modalities_of,
    numbered_user_embeddings,
    semantic_ids,
    store_as,
    user_embeddings,
    variant,
    vector_type,
)
from alignrec.schemas.results import (
    MASK,
    RESULTS,
    SLICES,
    STUDY,
    SWEEPS,
    TAIL,
    TESTS,
    TUNING,
    rankings,
)
