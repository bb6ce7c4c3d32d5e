"""Paired tests and probes as the verdict reads them."""

import pyarrow as pa

import schemas

PROTOCOL = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "f" * 16, "metric": "recall", "k": 20, "seeds": 3}
FIGURES = {"n": 2970, "mean_a": 0.2, "mean_b": 0.1, "low": 0.0, "high": 0.1, "p": 0.01}


def paired(*others: tuple[str, str, float, float], **changed: str) -> pa.Table:
    ours = {"model_a": "alignrec", "features_a": "beit3", "ablation_a": "", "ablation_b": ""}
    rows = [
        PROTOCOL | FIGURES | ours | changed
        | {"model_b": model, "features_b": features, "difference": difference, "p_holm": p}
        for model, features, difference, p in others
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.TESTS)


def probes(**outcomes: str) -> dict[str, list[dict[str, str]]]:
    rows = [
        {"probe": probe, "measure": f"hit@{k}", "a": "beit3", "b": b.replace("_", "-"),
         "verdict": word}
        for b, words in outcomes.items() for probe, word in zip(("zero_shot", "item_cf"), words.split(), strict=True)
        for k in (10, 20)
    ]  # fmt: skip
    return {"verdicts": rows}
