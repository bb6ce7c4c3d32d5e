"""A release as a page that answers: text or image in, nearest items out."""
