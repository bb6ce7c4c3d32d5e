"""The command `alignrec`, and `python -m stages`: a stage that has nothing to do says so before anything is loaded."""

import os
import sys

from pipeline import untouched


def main() -> None:
    """Run the command; of `torchrun`, all processes go the same way."""
    if len(sys.argv) == 3 and "RANK" not in os.environ and untouched.since_last(*sys.argv[1:]):
        print(f"{sys.argv[1]} {sys.argv[2]}: {untouched.NOTHING}")
        return
    from stages.cli import app

    app()


if __name__ == "__main__":
    main()
