"""One pipeline, one model per key: partitioning, training in shards, verdicts over all keys, prediction, monitoring."""
