"""Run independent jobs in this process, threads or processes, or on a Ray cluster (cluster.py)."""
# ruff: noqa: F401

from alignrec.pipeline.engine.local import CORES, Processes, Threads, each, map, threads
