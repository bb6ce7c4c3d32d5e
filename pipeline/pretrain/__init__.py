"""Pre-training of BEiT3: corpus, batches, losses, loop."""
