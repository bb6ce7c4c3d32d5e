"""HTTP client, resumable downloads, and reading of untrusted zip archives."""
