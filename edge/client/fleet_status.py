"""`fleet status`: what is in force in a repository, and what the devices have told of it."""

import json
import time
from argparse import Namespace
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from edge import durable
from edge.client import buckets, show
from edge.client.outcome import Exit, InputError, RefusedError
from edge.clock import SystemClock
from edge.fleet import doctor, overview
from edge.fleet import document as documents
from edge.fleet.document import Document
from edge.fleet.files import Files, FleetRepositoryError, FolderFiles
from edge.fleet.overview import Overview
from edge.fleet.repository import FleetRepository
from edge.fleet.standing import moment, standing
from edge.text import counted, printable

MANY_WORRIES = 20  # lines of what asks for a person
MANY = 5  # devices that are named in a line; the others are counted


def rules(document: Document, alias: str) -> str:
    """The rules of an alias, in words."""
    return ", else ".join(_rule(rule) for rule in document.models[alias])


def _rule(rule: documents.Rule) -> str:
    where = rule.where
    parts = [f"{where.percent:g} %"] if where.percent < 100 else []
    parts += [" or ".join(where.devices)] if where.devices else []
    parts += [" or ".join(where.arch)] if where.arch else []
    parts += [f"agent {where.min_agent} or later"] if where.min_agent else []
    name = rule.package.removeprefix("packages/").removesuffix(".tar.gz")
    return f"{name} ({', '.join(parts)})" if parts else name


def check_failed(options: Namespace, deployment: str) -> None:
    """Whether a deployment has failed on so few devices that it may go on.

    Raises:
        RefusedError: on too many, or nobody has reported.
        InputError: there is nothing to look at.
    """
    if options.reports is None:
        raise InputError("--if-failed-below needs --reports WHERE")
    told = _read(options, options.fleet)
    share = told.failed_share(deployment)
    if share is None:
        raise RefusedError("REFUSED", f"no device has reported {deployment} yet")
    if share >= options.if_failed_below:
        failed = told.failed(deployment)
        why = "; ".join(f"{count} x {reason}" for reason, count in _reasons(told, deployment).most_common(3))
        raise RefusedError(
            "REFUSED",
            f"{deployment} failed on {counted(len(failed), 'device')}, {share:.1f} % of those that reported: {why}",
        )


def files_of(where: str, options: Namespace) -> Files:
    """The files of a folder or a bucket, as people name it.

    Raises:
        InputError: it names none.
    """
    if not where.startswith(buckets.SCHEME):
        return FolderFiles(Path(where))
    from edge.cloud.build import build_bucket
    from edge.fleet.bucket_files import BucketFiles

    bucket, prefix = buckets.parse(where)
    region, endpoint = buckets.region_and_endpoint(options.region or "", options.endpoint or "")
    clock = SystemClock()
    return BucketFiles(*build_bucket(bucket, clock, region=region, endpoint=endpoint), prefix, clock)


def _read(options: Namespace, fleet: str) -> Overview:
    files = files_of(options.reports, options)
    if isinstance(files, FolderFiles) and not files.folder.is_dir():
        raise InputError(f"the reports in {options.reports} cannot be read: it is not a folder")
    try:
        with closing(files):
            return overview.read(files, fleet)
    except FleetRepositoryError as error:
        raise InputError(f"the reports cannot be read: {error}") from None


def _reasons(told: Overview, deployment: str) -> Counter[str]:
    """The reasons of a deployment's failures, each as `alias: why`, and on how many devices."""
    return Counter(f"{alias}: {why}" for one in told.failed(deployment) for alias, why in one.reasons.items())


def show_status(options: Namespace, repository: FleetRepository) -> Exit:
    """Prints it, or writes the page."""
    now = time.time()
    found = doctor.documents(repository)
    ending = list(doctor.ending(repository, now))
    packages = sorted(repository.packages())
    told = {name: _read(options, name) for name in found} if options.reports is not None else {}
    if options.html is not None:
        _write(options, [(told[name], found[name]) for name in told], now)
    if options.json:
        fleets = {name: _plain(document) for name, document in found.items()}
        heard = {name: _told(one, found[name], now, options.silent_after) for name, one in told.items()}
        show.as_json({"fleets": fleets, "packages": packages, "ending": ending, "told": heard})
        return Exit.OK
    print(f"{counted(len(packages), 'package')}: {', '.join(packages) or 'none is published'}")
    for name, document in found.items():
        print(f"fleet {name}: {f'deployment {document.deployment}' if document else 'nothing was deployed yet'}")
        if document is not None:
            for alias in document.models:
                print(f"  {alias}: {rules(document, alias)}")
        if name in told:
            print("\n".join(_lines(told[name], document, now, options.silent_after)))
    for line in ending:
        print(f"note: {line}")
    return Exit.OK


def _write(options: Namespace, fleets: list[tuple[Overview, Document | None]], now: float) -> None:
    from edge.fleet.page import page

    if options.reports is None:
        raise InputError("--html needs --reports WHERE")
    try:
        durable.write_file(options.html, page(fleets, now).encode())
    except OSError as error:
        raise InputError(f"{options.html} cannot be written: {durable.why(error)}") from None


def _told(told: Overview, document: Document | None, now: float, silent_after: int) -> dict[str, Any]:
    name = document.deployment if document is not None else ""
    return {
        "ok": sorted(told.well.get(name, ())),
        "failed": {one.device: one.reasons for one in told.failed(name)},
        "waiting": told.waiting(name),
        "silent": told.silent(now, silent_after),
        "versions": told.versions(),
        "devices": {device: _device(one) for device, one in sorted(told.heartbeats.items())},
        "unreadable": told.unreadable,
    }


def _device(heartbeat: dict[str, Any]) -> dict[str, Any]:
    """How a device stands; times in seconds since the epoch, 0 for what it has not told."""
    stands = standing(heartbeat)
    return {
        "agent": str(heartbeat.get("agent", "")),
        "deployment": str(heartbeat.get("deployment", "")),
        "at": moment(heartbeat.get("at")),
        "last_inference": stands.inference,
        "last_capture": stands.capture,
        "worries": list(stands.worries),
    }


def _lines(told: Overview, document: Document | None, now: float, silent_after: int) -> list[str]:
    """What devices have told, in words."""
    lines = []
    if document is not None:
        name = document.deployment
        good, failed, waiting = told.well.get(name, set()), told.failed(name), told.waiting(name)
        lines.append(
            f"  {counted(len(good), 'device')} serve it, {len(failed)} failed, {len(waiting)} have not reported"
        )
        lines += [f"    failed, {count} x {reason}" for reason, count in _reasons(told, name).most_common()]
        lines += [f"    failed on {_some([one.device for one in failed])}"] if failed else []
    for alias, versions in told.versions().items():
        serving = ", ".join(f"{version or 'nothing'} on {count}" for version, count in versions.most_common())
        lines.append(f"  {alias}: {serving}")
    if silent := told.silent(now, silent_after):
        lines.append(f"  silent for {counted(silent_after, 'day')} or longer: {_some(silent)}")
    for worry, devices in list(told.worries().items())[:MANY_WORRIES]:
        lines.append(f"  {_some(devices)}: {worry}")
    if told.unreadable:
        lines.append(f"  {counted(told.unreadable, 'report')} cannot be read")
    return [printable(line, show.PATH_CHARACTERS) for line in lines]


def _some(devices: list[str]) -> str:
    more = len(devices) - MANY
    return ", ".join(devices[:MANY]) + (f" and {more} more" if more > 0 else "")


def _plain(document: Document | None) -> Any:
    return json.loads(documents.to_bytes(document)) if document is not None else None
