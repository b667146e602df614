"""The papers' tables as data, and ours beside them."""
