"""Exports of a dataset or a release for other tools.

A format is a module with `write(content, folder)`, which returns usage instructions for the README, and optionally
`notes(content)`, sentences on what it changes or cannot express. Row i of a feature file is item i.
"""
