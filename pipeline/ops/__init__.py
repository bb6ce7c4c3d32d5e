"""Building blocks with no knowledge of items or users: products, top K, devices, checkpoints."""
