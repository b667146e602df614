"""WebDataset shards in object storage, streamed in an order that is a pure function of (seed, epoch)."""
