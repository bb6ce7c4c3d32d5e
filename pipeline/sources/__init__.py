"""Sources of datasets, one file per format; base.py has the registry."""
