"""The one transport: large files (fetch, ranged), many small ones (web), what may be retried, which addresses."""
