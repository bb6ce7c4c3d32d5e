"""Read and write files, text, archives, tables and arrays."""
# ruff: noqa: F401, I001

from alignrec.pipeline.io.files import (
    COST, JOURNAL, KEY, RECORD, digest, files_below, list_plain, made_by, next_to, open_plain,
    present, read_json, read_plain, require_plain, sha256, sha256s, suggest_file,
)  # fmt: skip
from alignrec.pipeline.io.folders import (
    is_free, refuse_links, remove, rename_folder, unlink_special,
)  # fmt: skip
from alignrec.pipeline.io.journal import (
    drop_unlisted, finish, is_finished, list_file, list_missing, open_journal, refuse_altered,
)  # fmt: skip
from alignrec.pipeline.io.writing import (
    atomic, copy_file, keep_only, link, memory_map, require_space, scratch, write_bytes, write_json,
    write_npy,
)  # fmt: skip
from alignrec.pipeline.io.provenance import (
    FINGERPRINT, common_fingerprint, fingerprint_of, first_difference, record, require_same_space,
)  # fmt: skip
from alignrec.pipeline.io.vector_columns import (
    decode_vectors, matrix, round_vectors, set_column, vectors,
)  # fmt: skip
from alignrec.pipeline.io.tables import (
    PART, column_sizes, read_listed, read_rows, read_slices, read_table, read_tables,
    reraise_faults, rows, write_table, write_tables, Texts,
)  # fmt: skip
from alignrec.pipeline.io.feature_files import (
    map_features, read_codes, read_features, read_vectors, shard, shards, width,
)  # fmt: skip
