"""Where data comes from: one file a vintage, one entry in READERS.

A reader is a module with `files`, `ratings`, `metadata`, `key`, `parse` and `product`; the sticker shop writes Amazon's
2014 format and is read as such.
"""
