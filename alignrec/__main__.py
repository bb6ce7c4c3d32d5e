"""Entry point of `alignrec` and `python -m alignrec`."""

import atexit
import gc
import os
import sys

from alignrec.pipeline.runtime import process


def _open_missing_streams() -> None:
    """Let streams that the caller has closed, as cron and `>&-` do, be those of os.devnull."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main() -> None:
    """Run the command line, or exit with an error if memory is too limited to load the
    libraries.
    """
    _open_missing_streams()
    # torch loads many objects, which Python would search for garbage hundreds of times, and at
    # exit: over a second
    gc.set_threshold(5000)
    atexit.register(gc.freeze)
    limit = process.address_limit()
    if limit is not None and limit < process.ADDRESSES:
        sys.exit(f"error: {process.TOO_LITTLE}")
    try:
        from alignrec.commands.app import app
    except KeyboardInterrupt:  # Ctrl-C while libraries are loaded
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
