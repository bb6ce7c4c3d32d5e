"""Dataset sources, one file per format; base.py has the registry."""
