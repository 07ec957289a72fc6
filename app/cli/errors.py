"""The one error of the one-laptop stack: what went wrong and what to do, in a sentence a person can act on."""


class StackError(Exception):
    """Something about this machine keeps the stack from running; the text names it and the way out."""
