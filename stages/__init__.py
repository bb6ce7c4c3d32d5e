"""Pipeline stages, one file each; order.py lists them, checks.py what settings none can have."""
