"""BEiT3: the network, its tokenizers, its checkpoints, and vectors out of it."""
