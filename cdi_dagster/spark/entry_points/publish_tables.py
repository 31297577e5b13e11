"""What spark-submit runs for `publish_tables`; the program is `cdi_dagster.spark.publish_tables`."""

import sys

from cdi_dagster.spark.publish_tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
