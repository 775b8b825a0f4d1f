"""How the library tells a person how far it is, without knowing where it is read."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one line of progress; a command prints it, a notebook may drop it."""
