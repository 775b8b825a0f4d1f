"""Ways to train the networks of a pack; each gives what `loop` gives, up to rounding."""
