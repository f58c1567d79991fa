"""The tables, and every read and write of them."""
