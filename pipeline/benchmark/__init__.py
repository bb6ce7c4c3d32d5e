"""Models x feature sets x seeds: jobs, results, paired tests; and searches of settings."""
