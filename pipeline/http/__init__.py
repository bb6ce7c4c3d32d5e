"""HTTP client, resumable downloads, and untrusted zip archives."""
