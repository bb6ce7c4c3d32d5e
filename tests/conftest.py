"""Before torch is imported: threads that wait must not spin, or tests crawl where cores are shared."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
