"""Vectors for any table, by an encoder of the parameters or of a release: the code path of the stage `encode`."""
