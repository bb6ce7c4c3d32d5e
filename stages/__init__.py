"""Pipeline stages, one file each; order.py lists them."""
