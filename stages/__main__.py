"""The command `alignrec`, and `python -m stages`."""

import sys

from pipeline import memory


def main() -> None:
    if not memory.has_addresses():
        sys.exit(f"error: {memory.TOO_LITTLE}")
    from stages.cli import app

    app()


if __name__ == "__main__":
    main()
