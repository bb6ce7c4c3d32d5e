"""Transport: large files (fetch, ranged), many small ones (web), retries, permitted addresses."""
