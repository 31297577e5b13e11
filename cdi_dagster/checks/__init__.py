"""Asset checks: does what was published add up."""
