"""Reports: a self-contained HTML page per dataset with tables, plots and gallery, and templates."""
