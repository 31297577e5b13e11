"""EMR clusters behind the seam `emr.backend`: the only room that knows EMR's API, its states and cluster templates."""
