"""One self-contained HTML page per dataset: tables, plots, gallery, and their templates."""
