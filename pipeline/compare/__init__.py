"""Comparison of feature sets: reading (feature_set), probes and paired tests (judge), trained recommenders (training),
geometry, two releases (releases), tables and pages (page, changes)."""
