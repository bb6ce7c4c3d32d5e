"""The command `alignrec`, and `python -m alignrec`."""

import sys

from alignrec.pipeline.harness import memory


def main() -> None:
    """Run a command, unless libraries would end the process as they load."""
    if not memory.has_addresses():
        sys.exit(f"error: {memory.TOO_LITTLE}")
    from alignrec.commands.app import app

    app()


if __name__ == "__main__":
    main()
