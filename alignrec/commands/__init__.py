"""The commands of `alignrec`."""
