"""A release as an older one and what changed since."""
