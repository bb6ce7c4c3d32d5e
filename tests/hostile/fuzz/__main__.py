"""`make fuzz MINUTES=60`: run the parsers of untrusted data on hostile inputs.

The time is shared equally among the targets. Each input has 10 seconds and 1 GiB. An input at which a target fails is
kept in tests/hostile/found; a name and `--first` give the same inputs again, and others with another number.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # what tests share lies there

from alignrec.pipeline.io.errors import UserError
from tests.hostile.fuzz import campaign, registry


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help="all by default")
    parser.add_argument("--minutes", type=float, default=60, help="of all targets together")
    parser.add_argument("--first", type=int, default=0, help="number of the first input; the seeds come first")
    given = parser.parse_args()
    names, failed = given.target or list(registry.TARGETS), []
    try:
        for name in names:
            registry.check(name)
    except UserError as e:
        print(e, file=sys.stderr)
        return 2
    for name in names:
        report = campaign.run(name, 60 * given.minutes / len(names), given.first)
        failed += [name] if report.fault else []
        outcome = f"{report.fault}; kept as {report.kept}" if report.fault else "sound"
        print(f"{name:<20}{report.inputs:>10,} inputs   {outcome}", flush=True)
    print(" ".join([f"{len(names)} targets, {len(failed)} failed", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
