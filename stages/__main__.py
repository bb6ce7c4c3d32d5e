"""The command under its earlier place, until each environment is installed again."""

import runpy


def main() -> None:
    runpy.run_module("alignrec", run_name="__main__")
