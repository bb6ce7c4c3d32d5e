"""HTTP: requests to permitted addresses (client), files (fetch); and archives."""
