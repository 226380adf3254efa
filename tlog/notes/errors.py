"""The one error of this room."""


class NoteError(ValueError):
    """A note, key, checkpoint, cosignature, proof, policy or key file was refused.

    The message says what is wrong, where (the line), and what would be right.
    """
