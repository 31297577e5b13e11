"""When a day is asked for late, missed or again."""
