"""Tests of alerts: what holds, when it is told, and how it arrives."""
