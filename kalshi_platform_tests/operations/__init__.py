"""Tests of running the whole: supervisor, ground, doctor, keys, files beside the code."""
