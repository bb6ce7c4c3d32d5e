"""Read and write files, text, archives, tables and arrays."""
# ruff: noqa: F401, I001

from alignrec.pipeline.io.files import (
    COST, JOURNAL, KEY, RECORD, atomic, begin, delete_unvouched, digest, files_below, keep_only, link,
    list_plain, made_by, mapped, next_to, present, read_json, rename_folder, require_plain,
    require_space, scratch, sha256, sha256s, write_bytes, write_json, write_npy,
)  # fmt: skip
from alignrec.pipeline.io.tables import (
    FINGERPRINT, PARQUET, PART, column_sizes, common_fingerprint, fingerprint_of, first_difference, map_features,
    matrix, one_set, read_codes, read_features, read_rows, read_slices, read_table, read_tables,
    read_vectors, record, rows, shard, shards, vectors, width, write_table, write_tables, Texts,
)  # fmt: skip
