"""The arithmetic of training: the world of ranks, one step, checkpoints."""
