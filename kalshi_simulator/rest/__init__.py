"""The REST side of the simulator."""
