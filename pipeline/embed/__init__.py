"""Vectors for any table, by the code path of stage `encode`."""
