"""The library behind the stages: arrays and tables in, arrays and tables out."""

import os

# Threads of torch and FAISS that wait for each other would spin for milliseconds, at the cost of other programs and, if
# those hold a core, of the thread that is waited for. OpenMP reads this when it is loaded, and nothing loads it sooner.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
