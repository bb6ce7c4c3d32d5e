"""The stages, a file each, and the command line."""
