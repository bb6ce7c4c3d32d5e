"""The stages: a file each, their order in order.py, and the command line above them."""
