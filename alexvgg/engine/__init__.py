"""Training: the world of ranks, one update, the steps between two epochs, checkpoints, and what may go wrong."""
