"""When a day is asked for on time."""
