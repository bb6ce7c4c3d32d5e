"""Exports a dataset or a release for other tools: content.py reads, write.py writes, one module a format.

A format is a module with `write(content, folder)`, which returns the README's instructions for reading. It may have
`notes(content)`: sentences for README and terminal on what it changes or cannot say.
Items are numbered by item_id, row i of a feature file is item i, and mapping files give the source's identifiers.
"""
