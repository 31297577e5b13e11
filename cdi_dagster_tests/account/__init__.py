"""From the repository to an installation in an account: templates, image, Dagster's instance, units."""
