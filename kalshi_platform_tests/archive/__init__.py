"""Tests of the archive: what is written, read back, dropped and restored."""
