"""Bring a corpus here: download, unpack, import a table of recordings."""
