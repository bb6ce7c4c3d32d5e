"""The one transport: large files (fetch, by way of ranged), many small ones (web), what may be retried, where addresses may lead."""
