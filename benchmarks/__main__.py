"""Run the named benchmarks, by default all but those of LONG."""

import importlib
import pkgutil
import sys

import benchmarks
from alignrec.pipeline.runtime import process

LONG = {"accuracy", "day", "million", "reviews"}  # minutes to hours each: run by name


def main(names: list[str]) -> None:
    known = [
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")
    ]
    if unknown := sorted(set(names) - set(known)):
        sys.exit(
            f"benchmarks: no benchmark is called {', '.join(unknown)}; choose from {', '.join(known)}"
        )
    process.spin_if_idle()  # like a stage, before torch is loaded
    for name in names or sorted({*known} - LONG):
        try:
            m = importlib.import_module(f"benchmarks.{name}").run()
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
