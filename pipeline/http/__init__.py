"""HTTP: permitted addresses and deadlines (connections), requests (client), files (fetch); the Hub, and archives."""
