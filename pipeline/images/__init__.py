"""Images of items: fetched, decoded, shrunk, and turned into a network's input."""
