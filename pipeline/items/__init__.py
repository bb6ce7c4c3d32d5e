"""Metadata of items: parsed and cleaned."""
