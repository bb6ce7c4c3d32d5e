"""Section `interactions` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from alignrec.pipeline.config.base import Positive, Section


class Interactions(Section):
    """Filtering, numbering, splitting."""

    # DuckDB spills to disk above this; its process takes some hundred MiB more, and reserves twice as much
    memory_limit: ClassVar[str] = "1GiB"

    # explicit ratings as implicit feedback: lower ones are dropped, before users and items are counted; null: none
    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    # users with fewer interactions are dropped; repeatedly, because items lose interactions too
    user_core: Positive = 5
    item_core: Positive = 5  # items with fewer interactions are dropped, likewise
    # how interactions are split: method.md section 6; the last two also change a split of the source's own
    protocol: Literal["mmrec", "leave-one-out", "user-time", "global-time", "cold-items", "sparse"] = "mmrec"
    # `cold-items`: items without any train interaction; half of them are the targets of valid, half those of test
    cold_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    # `sparse`: train interactions that a user keeps at most; of one draw the latest where there are times
    most_train: Positive = 5
    # `cold-items` and `sparse`: number of splits, each with other cold items or other train interactions; the
    # benchmark's runs take them in turn, all else takes the first
    draws: Positive = 5
    seed: int = 0  # of splits that are random
