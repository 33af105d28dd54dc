"""Asks GetThingConnectivityData with the boto3 that is found first; run as a program of its own."""

import json
import sys

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    keys = settings.get("keys")
    config = Config(**({} if keys else {"signature_version": UNSIGNED}))
    session = boto3.Session(*(keys or ()), region_name="eu-west-1")
    print(json.dumps(boto3.__version__))
    for line in sys.stdin:
        endpoint, thing = json.loads(line)
        client = session.client("iot", endpoint_url=endpoint, config=config)
        try:
            told = client.get_thing_connectivity_data(thingName=thing)
        except ClientError as error:
            told = {
                "error": error.response["Error"]["Code"],
                "status": error.response["ResponseMetadata"]["HTTPStatusCode"],
            }
        told.pop("ResponseMetadata", None)
        if "timestamp" in told:
            told["timestamp"] = round(told["timestamp"].timestamp() * 1000)
        print(json.dumps(told))


main()
