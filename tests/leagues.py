"""A row of table LEAGUE, for tests of what is made of it."""

ROW = {
    **{"dataset": "shop", "model": "bpr", "features": "none", "split": 0, "number": 0, "seed": 0, "setting": "{}"},
    **{"protocol": "mmrec", "fingerprint": "a", "budget": 1, "k": 20, "state": "complete", "valid": 0.1},
    **{"recall": 0.1, "ndcg": 0.1, "by_valid": True, "by_test": True, "seconds": 1.0, "memory_mib": 9, "machine": "m"},
}
