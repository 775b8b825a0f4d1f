"""The loop that trains a pack of tickets, and nothing that knows Ray."""
