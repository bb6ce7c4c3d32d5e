"""Entry point of `alignrec` and `python -m alignrec`."""

import sys

from alignrec.pipeline.harness import process


def main() -> None:
    """Run the command line, or exit with an error if memory is too limited to load the libraries."""
    if not process.has_addresses():
        sys.exit(f"error: {process.TOO_LITTLE}")
    try:
        from alignrec.commands.app import app
    except KeyboardInterrupt:  # Ctrl-C while libraries are loaded
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
