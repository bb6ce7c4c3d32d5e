"""Independent jobs: in this process, in threads, over processes; cluster.py has them on a Ray cluster."""
# ruff: noqa: F401

from alignrec.pipeline.engine.local import CORES, Processes, Threads, each, map, threads
