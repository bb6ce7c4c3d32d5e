"""Run the named benchmarks, by default all but those of LONG; `million` has options."""

import importlib
import os
import pkgutil
import sys

import benchmarks
from alignrec.pipeline.runtime import process

WITH_OPTIONS = ("million",)
LONG = {"accuracy", "day", "million", "reviews"}  # minutes to hours each: run by name


def main(arguments: list[str]) -> None:
    first = next((n for n, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names = arguments[:first]
    options = arguments[first:]
    if options and names not in ([name] for name in WITH_OPTIONS):
        sys.exit(f"benchmarks: {options[0]} is an option of {', '.join(WITH_OPTIONS)} only")
    known = [
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")
    ]
    if unknown := sorted(set(names) - set(known)):
        sys.exit(
            f"benchmarks: no benchmark is called {', '.join(unknown)}; choose from {', '.join(known)}"
        )
    # else each process compiles all modules that it imports
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    process.spin_if_idle()  # like a stage, before torch is loaded
    for name in names or sorted({*known} - LONG):
        try:
            run = importlib.import_module(f"benchmarks.{name}").run
            m = run(options) if options else run()
        except benchmarks.Absent as absent:
            if names:
                sys.exit(f"{name}: {absent}")
            print(f"{name}: not run: {absent}\n", flush=True)
            continue
        print(
            "\n".join([*benchmarks.lines(name, m), f"-> {benchmarks.save(name, m)}\n"]), flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
