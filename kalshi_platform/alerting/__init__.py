"""What operators are told: conditions that should not hold, from change to recovery."""
