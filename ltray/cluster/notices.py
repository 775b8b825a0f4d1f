"""Machines that are about to be taken away say so: what a trial does in the time that is left.

A spot instance of AWS is told two minutes before, one of Google 30 seconds. The trial writes its
state and leaves; Ray places nothing more on the node, so that it goes on elsewhere.
"""

import json
import os
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

ASKED_EVERY_SECONDS = 5.0
ANSWER_SECONDS = 2.0
LEFT_SECONDS = 120
MAKER = Path("/sys/class/dmi/id/sys_vendor")

Noticed = Callable[[], str]
"""What the machine's maker says of its end; empty while it says nothing."""


def this_machine() -> Noticed | None:
    """Who to ask on this machine; None where nobody gives notice."""
    # The variable is AWS's own, for its libraries and for those who run such a service themselves.
    given = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    maker = MAKER.read_text().strip() if MAKER.is_file() else ""
    if given or maker == "Amazon EC2":
        address = (given or "http://169.254.169.254").rstrip("/")
        return lambda: aws_notice(address)
    if maker == "Google":
        return google_notice
    return None


def aws_notice(address: str) -> str:
    """What EC2 says; a token comes first, since instances may ask for one."""
    life = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _asked(f"{address}/latest/api/token", life, method="PUT")
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    answer = _asked(f"{address}/latest/meta-data/spot/instance-action", headers)
    if not answer:
        return ""
    try:
        action = json.loads(answer)
        return f"AWS will {action['action']} it at {action['time']}"
    except (ValueError, KeyError, TypeError):
        return ""  # somebody else answers there


def google_notice() -> str:
    """What Compute Engine says."""
    address = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
    answer = _asked(address, {"Metadata-Flavor": "Google"})
    return "Google preempts it" if answer == "TRUE" else ""


def _asked(address: str, headers: dict[str, str], method: str = "GET") -> str:
    """The answer, or nothing: 404 is how no notice is given."""
    request = urllib.request.Request(address, headers=headers, method=method)
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with directly.open(request, timeout=ANSWER_SECONDS) as response:
            return str(response.read().decode())
    except (OSError, HTTPException, UnicodeDecodeError):
        return ""


class Watch:
    """Asks again and again, in a thread of its own, while a trial trains.

    Args:
        ask: None where nobody gives notice.
        on_notice: called once.
        node: by which people know the machine.
    """

    def __init__(self, ask: Noticed | None, on_notice: Callable[[str], None], node: str) -> None:
        self._ask = ask
        self._on_notice = on_notice
        self._node = node
        self._stop = threading.Event()
        self._notice = ""

    @property
    def leaves(self) -> Callable[[], str] | None:
        """As a place has it."""
        return None if self._ask is None else lambda: self._notice

    def __enter__(self) -> "Watch":
        if self._ask is not None:
            threading.Thread(target=self._watch, args=(self._ask,), daemon=True).start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self._stop.set()

    def _watch(self, ask: Noticed) -> None:
        while not self._stop.is_set():
            notice = ask()
            if notice:
                self._notice = f"{self._node}: {notice}"
                self._on_notice(notice)
                return
            self._stop.wait(ASKED_EVERY_SECONDS)


def drain_this_node(notice: str) -> None:
    """Have Ray place nothing more on this node."""
    import time

    import ray
    from ray.core.generated import autoscaler_pb2

    context = ray.get_runtime_context()
    client = ray._raylet.GcsClient(address=context.gcs_address)
    client.drain_node(
        context.get_node_id(),
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        notice,
        time.time_ns() // 1_000_000 + LEFT_SECONDS * 1000,
    )
