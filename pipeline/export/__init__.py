"""Exports of a dataset or a release for other libraries."""
