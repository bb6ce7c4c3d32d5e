"""One self-contained page a dataset: tables, plots, gallery, and the template that holds them."""
