"""The fleet's part of an agent, as its configuration asks for it."""

import os
import threading
from pathlib import Path

from edge.clock import Clock
from edge.cloud.store import Bandwidth, StoppedError, Throttle
from edge.config import Config
from edge.fleet.device import Fleet
from edge.fleet.document import Device, numbers
from edge.fleet.membership import Settings
from edge.fleet.polling import Polling
from edge.fleet.source import Source, SourceError


def build(config: Config, clock: Clock, version: str, build_date: int, bandwidth: Bandwidth) -> Polling:
    """What polls the fleet's repository; packages share the bandwidth with uploads."""
    device = Device(config.core_device_name, os.uname().machine, numbers(version))
    settings = Settings(
        fleet=config.core_device_fleet_name,
        device=device,
        root=Path(config.edge_fleet_root),
        folder=Path(config.edge_fleet_path),
        build_date=build_date,
    )
    stop = threading.Event()
    throttle = Throttle(bandwidth, stop)

    def pay(count: int) -> None:
        try:
            throttle.pay(count)
        except StoppedError:
            raise SourceError("the agent is stopping") from None

    fleet = Fleet(settings, clock, pay)

    def connect(repository: str) -> Source:
        from edge.fleet.web import connect

        return connect(repository, clock, config)

    interval = float(config.edge_fleet_poll_seconds)
    return Polling(fleet, config.edge_fleet_repository, interval, clock=clock, stop=stop, connect=connect)
