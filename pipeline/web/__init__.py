"""HTTP client that follows only permitted redirects, resumable downloads, retries."""
