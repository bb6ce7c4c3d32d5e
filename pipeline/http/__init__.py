"""The one transport: large files (fetch), many small ones (web), what may be retried, where addresses may lead."""
