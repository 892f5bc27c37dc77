"""What goes wrong in the matrix itself, told to a person without a traceback."""


class MatrixError(Exception):
    """The matrix cannot do what was asked; the message says why."""
