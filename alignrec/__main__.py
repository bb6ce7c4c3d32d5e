"""Entry point of `alignrec` and `python -m alignrec`."""

import atexit
import gc
import resource
import sys

from alignrec.pipeline.harness import process


def main() -> None:
    """Run the command line, or exit with an error if memory is too limited to load the libraries."""
    atexit.register(gc.freeze)  # Python would search what torch has loaded for garbage, for most of a second
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < process.ADDRESSES:
        sys.exit(f"error: {process.TOO_LITTLE}")
    try:
        from alignrec.commands.app import app
    except KeyboardInterrupt:  # Ctrl-C while libraries are loaded
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
