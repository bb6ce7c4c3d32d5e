"""What a release contains, decided by section `publish` and the licence of the source."""

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime.source import Licence


def resolve_settings(publish: Publish, licence: Licence) -> Publish:
    """Replace nulls in section `publish` with what the source's licence allows."""
    interactions = publish.interactions
    if interactions is None:
        interactions = licence.interactions
    users = publish.users or ("names" if interactions else "none")
    if interactions and users == "none":
        raise UserError(
            "publish.users is none, but interactions are released; set it to numbers or names"
        )
    texts = publish.texts or licence.texts
    return publish.model_copy(update={"interactions": interactions, "users": users, "texts": texts})
