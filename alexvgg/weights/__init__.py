"""Finished runs' weights: loaded, used to predict, exported for others, and imported from others."""
