"""The tables of the article (mask modality, long tail, arms of pre-training, sweeps of settings), and codes in use."""
