"""Models x feature sets x seeds: what is run, what is found, what is significant; and sweeps of settings."""
