"""Serve the page of a release with a search for the items nearest to a text or image."""
