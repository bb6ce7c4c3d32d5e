"""Whether the Hub has the third-party models of the parameters, before they are fetched."""

from collections.abc import Iterator
from functools import partial

from alignrec.pipeline.encoders import hub
from alignrec.pipeline.encoders.hub import Pretrained
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import kind_of, settings_of
from alignrec.pipeline.io.errors import Absent, UserError
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources.download import WAIT_SECONDS, ask_in_background


def list_models(params: Parameters) -> Iterator[tuple[str, Pretrained]]:
    """Yield the encoders that load a folder or a repository of the Hub: path of the settings, and
    the settings.
    """
    for name in params[Encode].encoders:
        kind = kind_of(params.encoders, name)
        if kind in hub.WANTED:
            settings = settings_of(params.encoders, name)
            assert isinstance(settings, Pretrained)
            yield f"encoders.{name}", hub.with_owner(kind, settings)


def refuse_absent_models(params: Parameters) -> None:
    """Raise UserError if the Hub says that it has no such model; an unreachable one is no error."""
    questions = {}
    for where, settings in list_models(params):
        if hub.find_cached(settings) is None:
            questions[where] = partial(_find_fault, where, settings)
    for fault in ask_in_background(questions, WAIT_SECONDS)().values():
        if fault:
            raise fault


def _find_fault(where: str, settings: Pretrained) -> Absent | None:
    try:
        # half of the time remains for resolving names
        hub.ask_hub(where, settings, WAIT_SECONDS / 2)
    except Absent as e:
        return e
    except UserError:
        return None
    return None
