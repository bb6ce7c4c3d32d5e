"""An example of each command, for its --help."""

EXAMPLES = {
    "images": "alignrec images sample --retry-failed",
    "publish": "alignrec publish sample --to s3://bucket/features",
    "new": "alignrec new mine --interactions ratings.csv --items items.jsonl --images images",
    "categories": "alignrec categories --year 2023",
    "init": "alignrec init && dvc repro",
    "new-plugin": "alignrec new-plugin my-parts",
    "repair": "alignrec repair && dvc repro",
    "plan": "alignrec plan sample",
    "features": "alignrec features sample --choose",
    "recommend": "alignrec recommend sample --user S000289 --k 5",
    "compare": "alignrec compare sample beit3 theirs.npy",
    "diff": "alignrec diff older newer --page diff.html",
    "leaderboard": "alignrec leaderboard release other/release --to leaderboard.html",
    "verify": "alignrec verify outputs/publish/sample/release",
    "fetch": "alignrec fetch s3://bucket/features/sample/0.1.0 --to release",
    "export": "alignrec export sample --format recbole --to recbole",
    "embed": "alignrec embed items.parquet --encoder minilm --text title,description --to vectors",
    "serve": "alignrec serve release --port 8000",
    "attest": "alignrec attest release --data sample",
}  # command -> its example, where it takes more than a dataset, or none


def example(command: str) -> str:
    return EXAMPLES.get(command, f"alignrec {command} sample")
