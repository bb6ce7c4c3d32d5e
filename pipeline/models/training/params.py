"""Section `train` of params.yaml: settings of the released recommender."""

from typing import Any, ClassVar

from pydantic import ConfigDict

from alignrec.pipeline.models.params import DEFAULT_FEATURE_SET, AlignRecParams, Train
from alignrec.pipeline.runtime.section import Name, Section, validate


class TrainSettings(Section):
    """Keys of AlignRec as given in params.yaml.

    All keys are those of AlignRecParams.
    """

    speed: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    model_config = ConfigDict(extra="allow")

    features: Name = DEFAULT_FEATURE_SET
    """feature set to train on; by default one that the dataset has"""

    def given(self) -> dict[str, Any]:
        """Return AlignRec's keys that are set."""
        return self.model_dump(exclude_unset=True)

    def facts(self) -> dict[str, Any]:
        """Return the keys that are set; defaults of others are in the code's fingerprint."""
        return {key: value for key, value in self.given().items() if key not in self.speed}

    def resolved(self) -> Train:
        """Return AlignRec's settings with defaults; UserError for an invalid key or value."""
        return validate(AlignRecParams, self.given(), "train")
