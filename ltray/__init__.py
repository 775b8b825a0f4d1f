"""Lottery-ticket sweeps on Ray."""
