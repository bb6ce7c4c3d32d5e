"""Which feature set to use, and why, in the first sentences of a report; derived from the tests."""

from collections.abc import Mapping, Sequence

from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.features.names import LINEAR
from alignrec.pipeline.features.quality import MIN_UNREAD
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.probes import RAW, SHUFFLED, read_probes
from alignrec.pipeline.report.table import Fields
from alignrec.pipeline.report.verdict import (
    Places,
    ReleasedOutcomes,
    compare_released,
    is_worse,
    outcomes_by_pair,
    probe_figures,
)

MIN_USERS = 1000  # below, only large differences are significant
TRAINED = "beit3"  # prefix of the sets that are trained here, which `linear` is advised against
OPPOSITE = {"better": "worse", "worse": "better", "undecided": "undecided"}


def advise(outputs: Outputs) -> list[str]:
    """Return sentences on the released feature set of a dataset; the first says what to use.

    Empty without evidence.
    """
    released = outputs.released
    outcomes = compare_released(released, outputs.probes, outputs.tests)
    chosen = choose_set(released, outcomes)
    where = outputs.layout.dataset
    if outputs.kind == "sample":
        where += " (synthetic users)"

    sentences = [
        _say_what_to_use(where, chosen, released, outcomes),
        _describe_few_users(outcomes),
        _describe_controls(released, outcomes.controls),
        _describe_unread(outputs.unread),
    ]
    return [sentence for sentence in sentences if sentence]


def choose_set(released: str, outcomes: ReleasedOutcomes) -> str:
    """Return the released set, or one that beats it, or `linear` if training gains nothing."""
    winners = {name: places for name, places in outcomes.rivals.items() if is_worse(places)}
    if winners:
        losses = {name: [*places.values()].count("worse") for name, places in winners.items()}
        return max(winners, key=lambda name: (losses[name], name == LINEAR))

    places = outcomes.rivals.get(LINEAR, {})
    if released.startswith(TRAINED) and {*places.values()} == {"undecided"}:
        return LINEAR
    return released


def _say_what_to_use(where: str, chosen: str, released: str, outcomes: ReleasedOutcomes) -> str:
    if chosen != released:
        words = [*outcomes.rivals[chosen].values()]
        tested = _comparisons(len(words))
        if "worse" in words:
            return (
                f"Use {chosen} (train.features) on {where}, not {released}: it is significantly "
                f"better in {words.count('worse')} of {tested}."
            )
        return (
            f"Use {chosen} (train.features) on {where}: it needs no training, and {released} is "
            f"significantly better in none of {tested} with it."
        )

    # of controls without content: a network before pre-training may be as good
    unbeaten = [
        name
        for name, places in outcomes.controls.items()
        if name in CONTROLS and "better" not in places.values()
    ]
    if unbeaten:
        controls = _name_controls(unbeaten)
        return f"Do not use {released} on {where} yet: no comparison puts it above {controls}."
    if not outcomes.rivals:
        return f"Use {released} on {where}: it is above the controls." if outcomes.controls else ""
    return conclude(where, {released: outcomes.rivals})


def conclude(where: str, best: Mapping[str, Mapping[str, Places]]) -> str:
    """Say which sets to use: `best` has the outcomes of each against each other set."""
    names = " or ".join(best)
    words = {name: _list_outcomes(rivals) for name, rivals in best.items()}
    if all({*found} == {"undecided"} for found in words.values()):
        return f"Use {names} on {where}: no significant difference in any comparison."

    clauses = []
    for name, rivals in best.items():
        subject = f"{name} is " if len(best) > 1 else ""
        clauses.append(f"{subject}{_describe_outcomes(words[name], _name_others([*rivals]))}")
    return f"Use {names} on {where}: {'; '.join(clauses)}."


def _describe_few_users(outcomes: ReleasedOutcomes) -> str:
    is_level = {*_list_outcomes(outcomes.rivals)} == {"undecided"}
    if not is_level or not 0 < outcomes.users < MIN_USERS:
        return ""
    return f"{outcomes.users:,} users are too few to tell feature sets apart."


def _describe_controls(released: str, controls: Mapping[str, Places]) -> str:
    if not controls:
        return ""
    words = _list_outcomes(controls)
    return (
        f"{released} is above {_name_controls(controls)} in {words.count('better')} of "
        f"{_comparisons(len(words))}."
    )


def _describe_unread(unread: Mapping[str, float]) -> str:
    clauses = [
        f"{share:.0%} of texts cannot be read by {name}"
        for name, share in unread.items()
        if share >= MIN_UNREAD
    ]
    if not clauses:
        return ""
    return f"{'; '.join(clauses)}: add an encoder of their language to encode.encoders."


def advise_comparison(comparison: Fields) -> list[str]:
    """Return sentences on the compared sets; the first says which to use. Empty for one set."""
    outcomes: dict[str, dict[str, Places]] = {name: {} for name in comparison["sets"]}
    for (a, b), places in outcomes_by_pair(comparison).items():
        outcomes[a][b] = places
        outcomes[b][a] = {place: OPPOSITE[word] for place, word in places.items()}
    leads = {}
    for name, rivals in outcomes.items():
        if words := _list_outcomes(rivals):
            leads[name] = words.count("better") - words.count("worse")
    if not leads:
        return []

    best = [name for name, lead in leads.items() if lead == max(leads.values())]
    sentences = [conclude(comparison.get("dataset", ""), {name: outcomes[name] for name in best})]
    sentences.append(_describe_control(comparison, best[0]))
    doubtful = [doubt["features"] for doubt in comparison.get("order", [])]
    if doubtful:
        sentences.append(f"First check the order of rows in {', '.join(doubtful)}: it looks wrong.")
    return [sentence for sentence in sentences if sentence]


def _describe_control(comparison: Fields, name: str) -> str:
    for probed in read_probes(probe_figures(comparison)).values():
        figures = probed.headline(RAW)
        if {name, SHUFFLED} <= figures.keys():
            return (
                f"The {probed.probe.name} {probed.probe.figure} of {name} is {figures[name]:.3f}, "
                f"that of the control {SHUFFLED} {figures[SHUFFLED]:.3f}."
            )
    return ""


def _describe_outcomes(words: Sequence[str], others: str) -> str:
    """Return such as: better than tfidf in 2 of 5 comparisons, never significantly worse."""
    better, worse = words.count("better"), words.count("worse")
    tested = _comparisons(len(words))
    if not better and not worse:
        return f"not significantly different from {others} in {tested}"
    if not better:
        return f"never significantly better than {others}, worse in {worse} of {tested}"

    rest = f"worse in {worse}" if worse else "never significantly worse"
    return f"better than {others} in {better} of {tested}, {rest}"


def _name_others(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"the other {len(names)} feature sets"


def _name_controls(names: Sequence[str] | Mapping[str, Places]) -> str:
    plural = "s" if len(names) > 1 else ""
    return f"the control{plural} {', '.join(names)}"


def _comparisons(count: int) -> str:
    return "1 comparison" if count == 1 else f"{count} comparisons"


def _list_outcomes(rivals: Mapping[str, Places]) -> list[str]:
    return [word for places in rivals.values() for word in places.values()]
