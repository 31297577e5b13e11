"""What spark-submit runs for `ingest_daily`; the program is `cdi_dagster.spark.ingest_daily`."""

import sys

from cdi_dagster.spark.ingest_daily import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
