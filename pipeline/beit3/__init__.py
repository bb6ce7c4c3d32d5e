"""BEiT3: network, tokenizers, checkpoints, pre-training, and the feature sets that it makes."""
