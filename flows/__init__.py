"""Prefect flows over the stages of dvc.yaml."""

import logging
import os
from pathlib import Path

from timnet.project.machine import avoid_proxies_on_loopback, name_the_user

# Prefect and DVC read these as they are imported or started. What Prefect keeps, its database and
# its logs, lies in the folder that one works in.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_HOME", str(Path(".prefect").absolute()))
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "timnet")  # tells of tries and waits
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
if not os.environ.get("PREFECT_API_URL") and "PREFECT_SERVER_API_AUTH_STRING" in os.environ:
    # the server is the project's own, and wants the login that its settings name
    os.environ.setdefault("PREFECT_API_AUTH_STRING", os.environ["PREFECT_SERVER_API_AUTH_STRING"])
avoid_proxies_on_loopback()
name_the_user()

# Of a task that returns a failed state Prefect first tells with an exception that there is not
# ("NoneType: None"), then as it tells of every task's end.
logging.getLogger("prefect.task_runs").addFilter(lambda record: record.exc_info != (None,) * 3)
# No slot of a limit within some seconds is no error: `reproduce.slot` then asks again, for hours.
logging.getLogger("prefect._internal.concurrency").addFilter(
    lambda record: "ConcurrencySlotAcquisition" not in record.getMessage()
)
