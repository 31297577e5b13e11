"""Resources without run config: what an installation sets does not belong in the form of a run. Used by `definitions`.

Dagster shows every field of a `ConfigurableResource` in the launchpad, with its value: a typo there would be another
root for that run.
"""

from typing import Any

import dagster as dg


def fixed(resource: Any) -> Any:
    """Return a resource that gives the same to assets and sensors, and that no run can configure.

    Args:
        resource: configured (not by `dg.EnvVar`, which only run config resolves), or a plain object. Any other
            definition of a resource is returned as it is.
    """
    if isinstance(resource, dg.ConfigurableResource):
        definition = resource.get_resource_definition()
        return dg.ResourceDefinition(definition.resource_fn, config_schema={}, description=definition.description)
    if isinstance(resource, dg.ResourceDefinition):
        return resource
    return dg.ResourceDefinition(lambda _: resource, config_schema={})
