"""Prefect's web pages, and the flows to start there, on loopback until Ctrl-C.

    python -m flows.ui [--port PORT]

Serves the deployments `reproduce/nightly` and `retrain/weekly`, whose schedules are off until
someone switches them on in the UI, and `acquire/on-demand`, with the current folder as the
workspace; and results/ on the next port, so that the links in artifacts lead to the report. What
Prefect keeps lies in .prefect/.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flows.command import command
from flows.process_group import ProcessGroup
from flows.server import HOST, announced, is_free, running_ui, start_server
from timnet.errors import TimnetError

LAST_PORT = 65535  # of TCP
NIGHTLY, WEEKLY = "0 2 * * *", "0 3 * * 0"  # UTC


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.ui")
    parser.add_argument(
        "--port", type=_port, default=4200, help=("port of the server; results/ uses the next one")
    )
    port = parser.parse_args().port
    if not Path("dvc.yaml").is_file():
        sys.exit("ui: no dvc.yaml here: start it in the root of the project or of a workspace.")
    with command("ui"), ProcessGroup() as processes:
        run(processes, port)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < LAST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port; give one from 1 to {LAST_PORT - 1}, as results/ uses the next "
            "one"
        )
    return int(text)


def run(processes: ProcessGroup, port: int) -> None:
    """Start everything, and serve until a signal comes; if it runs already, say where.

    Raises:
        TimnetError: a port is taken.
    """
    if other := running_ui():
        print(f"Prefect: {other.removesuffix('/api')}   (already running)")
        return
    if not is_free(port + 1):
        raise TimnetError(f"port {port + 1} of {HOST} is taken. Choose another with --port.")
    url = start_server(processes, port)
    os.environ["PREFECT_API_URL"] = url  # for Prefect, which is not imported yet, and for runs
    os.environ["TIMNET_RESULTS_URL"] = serve_results(port + 1)
    with announced(url):
        serve_flows(url)


def serve_results(port: int) -> str:
    """Show the folder results/ on loopback while this process lasts; gives its URL."""
    folder = Path("results").absolute()
    server = ThreadingHTTPServer((HOST, port), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{HOST}:{port}"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def serve_flows(url: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.runner import Runner
    from prefect.schedules import Cron

    from flows.acquire import acquire
    from flows.reproduce import reproduce, slots
    from flows.retrain import retrain

    class Serving(Runner):
        """Cancels what runs when it is told to stop, which Prefect's own one forgets."""

        async def start(self, *arguments: Any, **options: Any) -> None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, self.handle_sigterm)
            await super().start(*arguments, **options)

        def handle_sigterm(self, *_: Any, **__: Any) -> None:
            loop = asyncio.get_running_loop()
            if self.started:  # by the first signal it is not any more
                loop.call_soon_threadsafe(lambda: loop.create_task(self.astop()))

    slots()  # creates the limit

    def scheduled(deployment: str, cron: str) -> dict[str, Any]:
        try:
            with get_client(sync_client=True) as client:
                client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return {"schedules": [Cron(cron, active=False, slug=deployment.split("/")[1])]}
        return {}  # its schedule stays as someone has set it

    runner = Serving(pause_on_shutdown=False)
    runner.add_flow(reproduce, "nightly", **scheduled("reproduce/nightly", NIGHTLY))
    runner.add_flow(retrain, "weekly", **scheduled("retrain/weekly", WEEKLY))
    runner.add_flow(acquire, "on-demand")
    print(f"Prefect: {url.removesuffix('/api')}   (Ctrl-C stops it)", flush=True)
    asyncio.run(runner.start())


if __name__ == "__main__":
    main()
