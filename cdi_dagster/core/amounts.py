"""Durations and sizes as text, in one format everywhere. Standard library only."""

from datetime import timedelta


def duration_text(duration: timedelta | float) -> str:
    """Format a duration, or seconds: `45 s`, `2 min`, `1 h 30 min`; below zero it is `0 s`."""
    seconds = max(0.0, duration.total_seconds() if isinstance(duration, timedelta) else duration)
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size_text(size_bytes: float) -> str:
    """Format a number of bytes: `3.4 MB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
