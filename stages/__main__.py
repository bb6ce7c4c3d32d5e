"""The command `alignrec`, and `python -m stages`."""

from stages.cli import app


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
