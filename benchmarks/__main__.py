"""Run all benchmarks, or the named ones, and print a line each."""

import importlib
import pkgutil
import sys

import benchmarks


def main(names: list[str]) -> None:
    """Run, save, print."""
    known = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")]
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names or known:
        m = importlib.import_module(f"benchmarks.{name}").run()
        path = benchmarks.save(name, m)
        print(
            f"{name}: {m.ours:.4g} {m.unit}, reference {m.reference:.4g}, ratio {m.ratio:.2f}; "
            f"{m.share_of_limit:.0%} of {m.limit:.4g} ({m.limit_is}) -> {path}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
