"""Reports: one self-contained HTML page per dataset with tables, plots and gallery, and their templates."""
