"""Read and write files, text, archives, tables and arrays."""
# ruff: noqa: F401, I001

from alignrec.pipeline.io.files import (
    COST, JOURNAL, KEY, RECORD, digest, files_below, list_plain, made_by, next_to, open_plain,
    present, read_json, read_plain, require_plain, sha256, sha256s,
)  # fmt: skip
from alignrec.pipeline.io.folders import (
    is_free, refuse_links, remove, rename_folder, unlink_special,
)  # fmt: skip
from alignrec.pipeline.io.journal import (
    drop_unlisted, find_altered, finish, is_finished, list_file, list_missing, open_journal,
)  # fmt: skip
from alignrec.pipeline.io.writing import (
    atomic, copy_file, keep_only, link, memory_map, require_space, scratch, write_bytes, write_json,
    write_npy,
)  # fmt: skip
from alignrec.pipeline.io.tables import (
    FINGERPRINT, PARQUET, PART, column_sizes, common_fingerprint, decode_vectors, fingerprint_of,
    first_difference, map_features, matrix, read_codes, read_features, read_rows, read_slices,
    read_table, read_tables, read_vectors, record, require_same_space, reraise_faults, rows,
    round_vectors, set_column, shard, shards, stored_columns, vectors, width, write_table,
    write_tables, Texts,
)  # fmt: skip
