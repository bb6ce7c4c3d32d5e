"""Every training as a cell: plans say which, one runner trains what has no record yet, tables are read from records."""
