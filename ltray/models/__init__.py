"""Networks by name, and which of their weights can be pruned."""
