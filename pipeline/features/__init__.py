"""Stage `encode`: feature sets, each a node that is made of items, files or other nodes."""
