"""The library behind the stages: arrays and tables in, arrays and tables out."""

import os

from alignrec.pipeline.runtime import process

# let waiting threads of OpenMP sleep; nothing loads torch or FAISS before this package
os.environ.setdefault(process.POLICY, "PASSIVE")
