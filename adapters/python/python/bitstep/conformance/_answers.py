"""Answers that are none."""


class Unsupported(Exception):
    """There is no implementation of this; with the reason."""


class Lacks(Exception):
    """The case holds no such state, and the step needs it."""
