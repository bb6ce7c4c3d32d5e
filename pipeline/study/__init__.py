"""The tables of the article (mask modality, long tail, variants of pre-training, sweeps)."""
