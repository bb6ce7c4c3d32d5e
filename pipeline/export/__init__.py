"""A dataset or a release as other tools read it: content.py gathers, write.py writes, one module a format.

A format is a module with `write(content, folder)`, which returns the text that tells how to read what it wrote.
Everywhere an item's number is our item_id, row i of a feature file is item i, and mapping files give the source's
identifiers.
"""
