"""Scores, masks, trajectories and tickets: the lottery-ticket vocabulary as values and files."""
