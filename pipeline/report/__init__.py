"""One self-contained page a dataset: tables, plots, gallery, and their templates."""
