"""Pre-training of BEiT3: corpus, batches, losses, training loop."""
