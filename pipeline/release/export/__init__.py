"""Export a dataset or release in the formats of other libraries."""
