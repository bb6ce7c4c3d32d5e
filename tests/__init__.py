"""Tests mirror the packages; shared helpers are in this folder."""
