"""Whether a dataset in a store is intact, what it holds, and how fast it streams."""
