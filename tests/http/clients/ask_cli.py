"""Asks with AWS CLI v1, command by command, in one process; run as a program of its own."""

import contextlib
import io
import json
import os
import re
import sys
from typing import Any

import awscli
from awscli.clidriver import create_clidriver

ERROR = re.compile(r"\((\w+)\) when calling the GetThingConnectivityData operation")


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    keys = settings.get("keys")
    if keys:
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = keys
    driver = create_clidriver()
    print(json.dumps(awscli.__version__))
    for line in sys.stdin:
        endpoint, thing = json.loads(line)
        arguments = ["iot", "get-thing-connectivity-data", "--thing-name", thing, "--endpoint-url", endpoint]
        arguments += ["--region", "eu-west-1", "--output", "json", *([] if keys else ["--no-sign-request"])]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = driver.main(arguments)
        told: dict[str, Any]
        if code:
            found = ERROR.search(err.getvalue())
            told = {"error": found[1] if found else err.getvalue()}
        else:
            told = json.loads(out.getvalue())
        if "timestamp" in told:
            told["timestamp"] = round(told["timestamp"] * 1000)
        print(json.dumps(told))


main()
