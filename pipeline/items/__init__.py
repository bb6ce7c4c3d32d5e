"""Item metadata: parsing, cleaning and text."""
