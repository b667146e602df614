"""From labelled images, or shards that exist, to a dataset in a store."""
