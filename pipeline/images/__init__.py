"""Item images: download, decode, resize, and prepare for networks."""
