"""Encode any table with the code of stage `encode`."""
