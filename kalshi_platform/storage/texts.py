"""Texts from outside, made such that every text column and every JSONB takes them."""

_LONGEST = 2000


def storable(text: str) -> str:
    """`text` without what PostgreSQL refuses (zero characters, halves of surrogate pairs), cut.

    What is replaced stays visible as an escape. For words about a message (a reason, a cause); the
    message itself is kept as bytes.
    """
    # The cut comes first: it bounds the work, and the escapes at most multiply what is left.
    kept = text[:_LONGEST].replace("\0", "\\x00")
    return kept.encode(errors="backslashreplace").decode()
