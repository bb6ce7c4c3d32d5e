"""Parse and clean item metadata, and compose item texts."""
