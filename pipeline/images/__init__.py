"""Download, decode and resize item images, and prepare them for networks."""
