"""Exact errors: posteriors of every image, stored once and summed; integer counts, whatever the number of ranks."""
