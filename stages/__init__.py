"""One file a stage. This table is the order of the pipeline and the help of the command line."""

STAGES = {
    "download": "raw reviews and metadata of one dataset, with checksums",
    "interactions": "ratings -> k-core, dense ids, train/valid/test split",
    "items": "metadata of the surviving items -> clean text, image addresses",
    "images": "fetch, verify, resize; every item ends with a picture or a reason",
    "pretrain": "BEiT3 by masked image and masked language modelling",
    "encode": "items -> feature sets: BEiT3, the open recipe of today, controls",
    "graph": "FAISS nearest neighbours of every feature set",
    "train": "AlignRec on one feature set; user and item embeddings",
    "probe": "feature sets judged without a recommender, and by masking a modality",
    "benchmark": "models x feature sets x seeds under one protocol",
    "report": "one self-contained HTML page with tables, curves and a gallery",
    "publish": "the release folder: features, graph, card, manifest",
}
