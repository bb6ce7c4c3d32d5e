"""Search page of a release: text or image in, nearest items out."""
