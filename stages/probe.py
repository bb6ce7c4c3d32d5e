"""Stage probe: evaluate feature sets without a recommender."""

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.evaluation.probe.dataset import judge_dataset  # loads SciPy

    made = run.layout.feature_sets()
    listed = run.params[ProbeParams].features or made
    for name in listed:
        if name not in made:
            run.warn(f"{name}: no such set was made of this dataset, so it is not judged")
    names = [name for name in made if name in listed]
    io.write_json(run.layout.probes, judge_dataset(run, names))
    run.rows_in = run.rows_out = len(names)


PROBE = Stage(
    "probe",
    does="feature sets judged without a recommender",
    writes="`probes.json`: feature sets judged before any training",
    reads=(INTERACTIONS, *FEATURE_SET_STAGES),
    sections=("train.features", *FEATURE_SETS),
    params=ProbeParams,
    main=main,
    loads=(PROBES,),
)
