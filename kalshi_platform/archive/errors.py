"""What can be wrong with the archive."""


class ArchiveDamaged(RuntimeError):
    """A file of the archive is missing, or is not what was written; the text says which and how."""
