"""Models x feature sets x seeds: jobs, results, paired tests; and sweeps of settings."""
