"""What settings mean for one another: what follows from them, what nothing uses, and what does not go together.

`values` and `sources` are by a setting's name; what is wrong goes into `faults` and `warnings`, in words.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from edge import log
from edge.access import why_unusable
from edge.settings import LISTEN_TLS, PREFIX, full_key
from edge.text import cut

STATE_ENVIRONMENT = "STATE_DIRECTORY"  # in the environment of a service (systemd.exec(5)), more than one by ":"
STATE_FOLDER = "/var/lib/sagemaker-edge-agent"
TEMPORARY_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108 - where nothing is kept
UPLOADS_ALONE = frozenset(
    {
        "core_iot_thing_name",
        "core_region",
        "core_endpoint_override",
        "provider_provider",
        "provider_aws_ca_cert_file",
        "provider_aws_cert_file",
        "provider_aws_cert_pk_file",
        "provider_aws_iot_cred_endpoint",
        "provider_s3_bucket_name",
    }
)
_CUSTOM = "Custom providers are shared objects of the original agent and cannot be loaded"


def derive(values: dict[str, Any], sources: dict[str, str]) -> None:
    """Fill in what follows from other settings."""

    def fill(name: str, value: Any, source: str) -> None:
        if values[name] == "":
            values[name], sources[name] = value, source

    fill("core_iot_thing_name", values["core_device_name"], "the device name")
    bucket = values["provider_s3_bucket_name"]
    fill("provider_provider", "Aws" if bucket else "None", "a bucket is set" if bucket else "no bucket is set")
    fill("edge_log_stream", log.usual_stream(), "default")
    folder, source = _state_folder()
    if folder:
        fill("edge_package_store_path", folder + "/packages", source)
        fill("edge_fleet_path", folder + "/fleet", source)
    disk = values["core_capture_data_disk_path"]
    if disk and (values["core_capture_data_destination"] == "Disk" or _without_provider(values, sources)):
        fill("edge_spool_path", disk.rstrip("/") + "/.spool", "inside the capture folder")
    elif folder:
        fill("edge_spool_path", folder + "/spool", source)


def _state_folder() -> tuple[str, str]:
    """The first usual folder for a program's state that this user can write to, and where it comes from; or ("", "").

    Where none is, the service's own folder, which may be there later.
    """
    given = os.environ.get(STATE_ENVIRONMENT, "").split(":")[0], STATE_ENVIRONMENT
    for folder, source in itertools.chain([given], _own_folders()):
        if _may_keep(folder) and not why_unusable(folder):
            return folder, source
    return given if _may_keep(given[0]) else ("", "")


def _own_folders() -> Iterator[tuple[str, str]]:
    yield STATE_FOLDER, "default"
    given = os.environ.get("XDG_STATE_HOME", "")
    # A user without an entry in passwd has no home: "~" stays.
    home = given if given.startswith("/") else os.path.expanduser("~/.local/state")  # noqa: PTH111 (Path's raises)
    yield f"{home}/{Path(STATE_FOLDER).name}", f"this user cannot write to {STATE_FOLDER}"


def _may_keep(folder: str) -> bool:
    """Whether a folder is one that nothing but the agent empties."""
    real = Path(os.path.realpath(folder))
    return folder.startswith("/") and not any(real.is_relative_to(os.path.realpath(one)) for one in TEMPORARY_FOLDERS)


def _without_provider(values: dict[str, Any], sources: dict[str, str]) -> bool:
    """Whether the file says that there is no cloud side."""
    return values["provider_provider"] == "None" and sources["provider_provider"] == "file"


def keep_on_disk(values: dict[str, Any], sources: dict[str, str], warnings: list[str]) -> None:
    """Without a provider nothing is uploaded: captures that have a place on disk stay there."""
    if not (_without_provider(values, sources) and values["core_capture_data_disk_path"]):
        return
    for name, off in (("core_capture_data_destination", "Disk"), ("core_capture_data_periodic_upload", False)):
        if values[name] in ("Cloud", True):
            warnings.append(
                f"{PREFIX}{name}: {shown_value(values[name])} needs a provider, and the provider is None; captures are kept in "
                f"{PREFIX}core_capture_data_disk_path"
            )
            values[name], sources[name] = off, "the provider is None"


def unused_settings(values: dict[str, Any], wrong: Collection[str]) -> set[str]:
    """Settings that nothing uses as others are."""
    if not {"core_capture_data_destination", "core_capture_data_periodic_upload"}.isdisjoint(wrong):
        return {"provider_provider_path"}
    cloud, periodic = values["core_capture_data_destination"] == "Cloud", values["core_capture_data_periodic_upload"]
    unused = {"provider_provider_path"}
    if cloud:
        unused.add("core_capture_data_disk_path")
    if cloud or not periodic:
        unused.add("core_capture_data_periodic_upload_period_seconds")
    if not cloud and not periodic and not _fleet_needs_credentials(values):
        unused |= UPLOADS_ALONE
    return unused


def check_together(
    values: dict[str, Any], sources: dict[str, str], wrong: set[str], faults: list[str], warnings: list[str]
) -> None:
    """Checks that take more than one setting, but for those whose own value is `wrong`: one fault is one line."""

    def need(name: str, reason: str) -> None:
        if values[name] == "" and name not in wrong:
            faults.append(f"{full_key(name)}: missing; it is required {reason}")

    cloud = values["core_capture_data_destination"] == "Cloud"
    uploads = cloud or values["core_capture_data_periodic_upload"]
    if not cloud and "core_capture_data_destination" not in wrong:
        need("core_capture_data_disk_path", "when captures go to Disk")
    if cloud or values["core_capture_data_disk_path"]:
        need(
            "edge_spool_path",
            f"where this user can write neither to {STATE_FOLDER} nor to a home outside {' and '.join(TEMPORARY_FOLDERS)}",
        )
    _check_fleet(values, need, uploads, faults)
    if not uploads:
        if values["provider_provider"] == "Custom":
            warnings.append(f"{PREFIX}provider_provider: {_CUSTOM}; nothing is uploaded, and it is ignored")
    elif values["provider_provider"] == "Custom":
        faults.append(f"{PREFIX}provider_provider: {_CUSTOM}; expected Aws or None")
    elif values["provider_provider"] == "Aws":
        need("core_region", "with provider Aws")
        need("provider_s3_bucket_name", "with provider Aws")
        _check_credentials(values, wrong, faults)
        bucket = values["provider_s3_bucket_name"]
        if bucket and "sagemaker" not in bucket:
            warnings.append(
                f"{PREFIX}provider_s3_bucket_name: {bucket} does not contain 'sagemaker'; policies made for the original agent may not cover it"
            )
    elif not wrong & {"provider_provider", "provider_s3_bucket_name"}:
        faults.append(
            f"{PREFIX}core_capture_data_{'destination' if cloud else 'periodic_upload'}: captures are to be uploaded, but "
            f"the provider is None; expected provider Aws and {PREFIX}provider_s3_bucket_name, or provider None and "
            f"{PREFIX}core_capture_data_disk_path to keep them on disk"
        )
    if values["provider_provider_path"]:
        warnings.append(f"{PREFIX}provider_provider_path is not used by this agent and is ignored")
    if not wrong & {"edge_listen", *LISTEN_TLS}:
        _check_listen(values, faults, warnings)
    if not wrong & {"core_capture_data_batch_size", "core_capture_data_buffer_size"}:
        _check_batch(values, sources, faults, warnings)


def _check_listen(values: dict[str, Any], faults: list[str], warnings: list[str]) -> None:
    """Other addresses than loopback come with TLS, and its files come together."""
    where, given = values["edge_listen"], [name for name in LISTEN_TLS if values[name]]
    if given and not where:
        warnings.append(f"{', '.join(given)}: nothing uses it without edge_listen, and it is ignored")
    elif given:
        faults.extend(
            f"{name}: missing; TLS on edge_listen needs all three of {', '.join(LISTEN_TLS)}"
            for name in LISTEN_TLS
            if name not in given
        )
    if not where:
        return
    from ipaddress import ip_address

    try:
        address = ip_address(where.rpartition(":")[0].strip("[]"))
    except ValueError:
        faults.append(
            f"edge_listen: {shown_value(where)} is not allowed; expected the number of an address, and a port"
        )
        return
    if str(address) not in ("127.0.0.1", "::1") and not given:
        faults.append(
            f"edge_listen: {shown_value(where)} is not allowed; expected 127.0.0.1:PORT or [::1]:PORT: other addresses need TLS with "
            f"client certificates ({', '.join(LISTEN_TLS)})"
        )


def _fleet_needs_credentials(values: dict[str, Any]) -> bool:
    """Whether models of a fleet come from a private bucket, or reports go to one."""
    return values["edge_fleet_reports"] == "bucket" or str(values["edge_fleet_repository"]).startswith("s3://")


def _check_fleet(values: dict[str, Any], need: Callable[[str, str], None], uploads: bool, faults: list[str]) -> None:
    """What models of a fleet take."""
    if values["edge_fleet_repository"]:
        need("edge_fleet_root", "with edge_fleet_repository: the repository's 1.root.json, brought here by other means")
    if values["edge_fleet_root"]:
        need("edge_fleet_path", "with edge_fleet_root")
        need("edge_package_store_path", "with edge_fleet_root")
    if values["edge_fleet_reports"]:
        need("edge_fleet_root", "with edge_fleet_reports")
    if values["edge_fleet_repository"].startswith("s3://") and not uploads:
        need("core_region", "with edge_fleet_repository in a bucket")
    if values["edge_fleet_reports"] == "bucket" and not uploads:
        need("core_region", "with edge_fleet_reports in the bucket")
        need("provider_s3_bucket_name", "with edge_fleet_reports in the bucket")
        if values["provider_provider"] == "None" and values["provider_s3_bucket_name"]:
            faults.append(
                "edge_fleet_reports: bucket needs a provider, and the provider is None; expected provider Aws"
            )


def _check_batch(values: dict[str, Any], sources: dict[str, str], faults: list[str], warnings: list[str]) -> None:
    """A batch fits into the buffer."""
    batch, buffer = values["core_capture_data_batch_size"], values["core_capture_data_buffer_size"]
    if batch > buffer and sources["core_capture_data_batch_size"] == "default":
        values["core_capture_data_batch_size"] = buffer
        sources["core_capture_data_batch_size"] = "the buffer size"
    elif batch > buffer:
        faults.append(
            f"{PREFIX}core_capture_data_batch_size: {batch} is not allowed; expected less than {PREFIX}core_capture_data_buffer_size ({buffer})"
        )
    elif batch == buffer:
        warnings.append(
            f"{PREFIX}core_capture_data_batch_size equals the buffer size ({buffer}): calls may be refused while a batch is written"
        )


def _check_credentials(values: dict[str, Any], wrong: set[str], faults: list[str]) -> None:
    """The IoT settings come together or not at all (then the environment gives the credentials)."""
    names = (
        "provider_aws_ca_cert_file",
        "provider_aws_cert_file",
        "provider_aws_cert_pk_file",
        "provider_aws_iot_cred_endpoint",
    )
    missing = [name for name in names if values[name] == "" and name not in wrong]
    if missing and len(missing) < len(names):
        faults.extend(
            f"{PREFIX}{name}: missing; the IoT credentials need all four of provider_aws_*" for name in missing
        )
    endpoint = values["provider_aws_iot_cred_endpoint"]
    if endpoint and not re.fullmatch(r"https://[^/?#@]+/role-aliases/[^/?#]+/credentials", endpoint):
        faults.append(
            f"{PREFIX}provider_aws_iot_cred_endpoint: {shown_value(endpoint)} is not allowed; expected https://HOST/role-aliases/ALIAS/credentials"
        )


def shown_value(value: Any) -> str:
    """A value as the file has it, cut to a readable length."""
    text = json.dumps(value)
    return cut(text, 80)
