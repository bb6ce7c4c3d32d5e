"""Parameters: strictly validated, immutable sections, defined in the `params.py` of each package."""
