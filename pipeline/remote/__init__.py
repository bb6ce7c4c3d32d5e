"""Download and upload releases: read access by address (stores), fetch and push."""
