"""Parameters: closed, typed, frozen sections in the `params.py` of each package."""
