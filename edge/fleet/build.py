"""Builds the fleet's part of an agent from its configuration."""

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
from edge.fleet.reports import BucketOutlet, FolderOutlet, Outlet, Reports
from edge.fleet.source import Source, SourceError, folder_of
from edge.fleet.telling import Telling


def build(config: Config, clock: Clock, version: str, build_date: int, bandwidth: Bandwidth) -> Polling:
    """What polls the fleet's repository; packages share the bandwidth with uploads."""
    device = Device(config.core_device_name, os.uname().machine, numbers(version))
    settings = Settings(
        fleet=config.core_device_fleet_name,
        device=device,
        root=Path(config.edge_fleet_root),
        folder=Path(config.edge_fleet_path),
        build_date=build_date,
        roots=Path(config.core_root_certs_path),
    )
    stop = threading.Event()
    throttle = Throttle(bandwidth, stop)

    def pay(count: int) -> None:
        try:
            throttle.pay(count)
        except StoppedError:
            raise SourceError("the agent is stopping") from None

    telling = Telling(
        settings,
        version,
        clock,
        Reports(settings.folder / "reports", _outlet(config, clock, throttle)),
        float(config.edge_fleet_heartbeat_seconds),
    )
    fleet = Fleet(settings, clock, pay, telling.outcome)

    def connect(repository: str) -> Source:
        from edge.fleet.web import connect

        return connect(repository, clock, config)

    interval = float(config.edge_fleet_poll_seconds)
    polling = Polling(
        fleet, config.edge_fleet_repository, interval, clock=clock, stop=stop, connect=connect, telling=telling
    )
    telling.standing = polling.standing
    return polling


def _outlet(config: Config, clock: Clock, pace: Throttle) -> Outlet | None:
    """Where reports go; None: nowhere."""
    folder = folder_of(config.edge_fleet_reports)
    if folder is not None:
        return FolderOutlet(folder)
    if config.edge_fleet_reports != "bucket":
        return None
    from edge.cloud.build import build_store  # only where reports go to a bucket

    store = build_store(config, clock)
    return BucketOutlet(store, pace) if store is not None else None
