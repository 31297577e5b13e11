"""What every user of AWS shares: `clients` makes the clients, `secrets` reads secrets. No dagster.

For storage, the Spark jobs and all above them; botocore and boto3 are imported when the first client is made.
"""
