"""Models x feature sets x seeds, and the article's other tables: every training is a cell with a record of its own."""
