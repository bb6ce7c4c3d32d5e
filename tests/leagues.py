"""A row of table LEAGUE, and what follows from a league, for tests of what is made of them."""

ROW = {
    **{"dataset": "shop", "model": "bpr", "features": "none", "split": 0, "number": 0, "seed": 0, "setting": "{}"},
    **{"protocol": "mmrec", "fingerprint": "a", "rules": "r", "budget": 1, "k": 20, "state": "complete", "valid": 0.1},
    **{"recall": 0.1, "ndcg": 0.1, "by_valid": True, "by_test": True, "seconds": 1.0, "memory_mib": 9, "machine": "m"},
}
TEST = {
    **{"measure": "recall@20", "a": "vbpr on beit3", "b": "vbpr on random", "n": 9, "mean_a": 0.2, "mean_b": 0.1},
    **{"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.01, "p_holm": 0.02},
}
FOUND = {
    **{"pairs": [], "gains": [TEST], "ranks": {"vbpr on beit3": 1.0}, "groups": [], "fused": {}, "left_out": {}},
    "stability": {"seeds": 1.0, "splits": None, "published": 0.5},
    "audit": {
        **dict.fromkeys(("repeated_pairs", "pairs_in_train_and_later", "cold_users", "cold_items"), 0),
        **dict.fromkeys(("test_before_own_train", "train_after_first_test"), None),
        **dict.fromkeys(("cold_targets", "popular_in_train", "popular_in_test", "shift", "shift_by_chance"), 0.1),
    },
}
