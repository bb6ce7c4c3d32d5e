"""BEiT3: the network, its tokenizers, its checkpoints, and inference."""
