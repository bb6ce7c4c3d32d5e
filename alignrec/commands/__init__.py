"""The commands of `alignrec`: a file per family, and what they share."""
