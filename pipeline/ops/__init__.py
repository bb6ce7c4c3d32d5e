"""Building blocks with no knowledge of items or users: products, unit rows, top K, devices, checkpoints."""
