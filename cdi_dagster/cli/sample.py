"""`cdi sample`: invented, encrypted raw objects as K2HB writes them. Development only; the writer is `demo.sample`."""

from datetime import date

import click

from cdi_dagster.cli.console import facts, json_option, print_json, result_console
from cdi_dagster.cli.options import CollectionType, corporate_root_option, given, storage_day_option
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.collections import Collection


@click.command("sample")
@corporate_root_option()
@click.option(
    "--collection",
    type=CollectionType(),
    default="data:businessAudit",
    show_default=True,
    metavar="DB:NAME",
    help="Collection to invent.",
)
@storage_day_option()
@click.option("--records", type=click.IntRange(min=1), default=1000, show_default=True, help="Envelopes in all.")
@click.option("--objects", type=click.IntRange(min=1), help="Raw objects in all. Default: one for 100 records.")
@click.option("--bad-envelopes", type=click.IntRange(min=0), default=0, show_default=True, help="How many are broken.")
@click.option("--kafka-partitions", type=click.IntRange(min=1), default=3, show_default=True, help="Kafka partitions.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed makes another sample.")
@json_option
def sample_command(
    corporate_root: str | None,
    collection: Collection,
    storage_day: date,
    records: int,
    objects: int | None,
    bad_envelopes: int,
    kafka_partitions: int,
    seed: int,
    as_json: bool,
) -> None:
    """Write one storage day of invented, encrypted raw objects, as K2HB does.

    For development and tests: the data keys are wrapped as the local key service (cdi dks) unwraps them, which keeps
    nothing secret. The same arguments write the same bytes. Of a keyed collection half of the events insert an id; the
    others update and delete ids that the samples of the days before insert.
    """
    from cdi_dagster.demo.sample import write_sample
    from cdi_dagster.settings import load_settings
    from cdi_dagster.storage import open_storage

    storage = open_storage(load_settings(**given(corporate_root=corporate_root)).corporate_root)
    try:
        summary = write_sample(
            storage,
            collection.on(storage_day),
            records=records,
            objects=objects or -(-records // 100),
            seed=seed,
            bad_envelopes=bad_envelopes,
            kafka_partitions=kafka_partitions,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    where = storage.uri(collection.on(storage_day).corporate_prefix)
    if as_json:
        print_json(
            {
                "collection": collection.id,
                "storage_day": storage_day,
                "prefix": where,
                "objects": summary.objects,
                "records": summary.records,
                "bytes": summary.stored_bytes,
                "bad_by_reason": dict(summary.bad_by_reason),
                "offsets": {str(number): list(span) for number, span in summary.offsets.items()},
            }
        )
        return
    bad = ", ".join(f"{count} {reason}" for reason, count in summary.bad_by_reason.items())
    result_console().print(
        facts(
            [
                ("written", f"{summary.objects} raw objects, {size_text(summary.stored_bytes)}"),
                ("envelopes", f"{summary.records:,}" + (f", of which broken: {bad}" if bad else "")),
                ("under", where),
            ]
        )
    )
