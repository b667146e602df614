"""Exact errors: integer counts over images, each image once whatever the number of ranks."""
