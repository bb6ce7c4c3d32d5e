"""Exports a dataset or a release for other tools: content.py reads, write.py writes, one module a format.

A format is a module with `write(content, folder)`, which returns the README's instructions for reading.
Items are numbered by item_id, row i of a feature file is item i, and mapping files give the source's identifiers.
"""
