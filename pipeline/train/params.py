"""Section `train` of params.yaml: the settings of the recommender that is released."""

from typing import Any, ClassVar, cast

from pydantic import ConfigDict

from alignrec.pipeline.config.base import Name, Section, checked
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.params import FEATURES, Train


class Released(Section):
    """Keys of AlignRec, as the file gives them; pipeline/models/alignrec.py has them all, and loads torch."""

    speed: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    model_config = ConfigDict(extra="allow")

    features: Name = FEATURES
    """the feature set that it is trained on; where it is not given, one that the dataset has"""

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True)

    def facts(self) -> dict[str, Any]:
        """Return the keys that are set; AlignRec's class, which has the defaults of the others, counts as code."""
        return {key: value for key, value in self.given().items() if key not in self.speed}

    def resolved(self) -> Train:
        """Return AlignRec's settings with defaults; UserError names a key or value that it refuses."""
        return cast(Train, checked(MODELS[RELEASED].Params, self.given(), "train"))
