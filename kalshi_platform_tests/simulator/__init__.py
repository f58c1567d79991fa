"""Tests of the simulator over its sockets, without any of the platform's client code."""
