"""Where alerts go, one module each: what a target takes, and how it is reached. `resources.alerts` chooses one.

Only `resources.alerts` imports these. Each sends one alert or raises; retrying is the sensors'. Why not Apprise, which
knows these targets too: it sets no attributes of an SNS message, and returns no reason where a target refuses.
"""
