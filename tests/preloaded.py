"""Hashes of our code, which take two seconds and each forked process inherits."""

from alignrec.pipeline.runtime import code
from alignrec.stages.order import STAGES

for stage in STAGES.values():
    code.fingerprint(*stage.modules())
