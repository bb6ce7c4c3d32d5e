"""Estimates before a run: hours, memory and disk of each stage, and addresses that do not answer."""
