"""Independent jobs: in this process, in threads, over devices, over processes, or on a Ray cluster."""

from pipeline.engine.cluster import Ray
from pipeline.engine.local import CORES, Devices, Threads
from pipeline.engine.processes import Processes
from pipeline.engine.spread import each, map, threads

__all__ = ["CORES", "Devices", "Processes", "Ray", "Threads", "each", "map", "threads"]
