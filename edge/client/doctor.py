"""`doctor`: looks at everything the agent rests on; each line says OK, WARN or FAIL, and how to put it right.

It reads and never changes anything, and works with the agent running or not.
"""

import grp
import os
import pwd
import shutil
import stat
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge import access, address
from edge.client import doctor_fleet, show
from edge.client.connection import HEALTH, OPERATIONS, Agent, peer_credentials, why_unreachable
from edge.client.doctor_models import check_models
from edge.client.findings import Finding, Level, fail, ok, warn
from edge.client.outcome import CommandError, Exit
from edge.clock import SystemClock
from edge.config import INSTALLED_CONFIG, Config, load_config
from edge.engine import litert
from edge.engine.engine import SessionOptions
from edge.engine.engines import Engines
from edge.engine.gpu_check import find_gpu
from edge.errors import ConfigError, MemoryLimitError, TargetError, TrustError
from edge.package import trust_folder
from edge.settings import LISTEN_TLS, full_key
from edge.text import counted, printable
from edge.version import version

EXPIRES_SOON_DAYS = 60
LEAST_SEGMENT_BYTES = 64 << 20  # as large as the largest message
LEAST_MEMORY_BYTES = 64 << 20
LEAST_INODES = 64  # twice what captures leave


def doctor(options: Namespace) -> Exit:
    """Prints every finding; REFUSED when one is FAIL."""
    findings = list(examine(options.socket, options.config, options.timeout))
    if options.json:
        listed = [{"level": f.level, "subject": f.subject, "text": f.text, "fix": f.fix} for f in findings]
        wrong = sum(finding.level is Level.FAIL for finding in findings)
        show.as_json({"findings": listed}, f"{counted(wrong, 'check')} failed" if wrong else "")
    else:
        for finding in findings:
            print(f"{finding.level:<4}  {finding.subject}: {printable(finding.text, show.PATH_CHARACTERS)}")
            if finding.fix:
                print(f"      -> {printable(finding.fix, show.PATH_CHARACTERS)}")
        counts = [sum(f.level is level for f in findings) for level in Level]
        print(f"\n{counts[0]} OK, {counts[1]} to look at, {counts[2]} failed")
    return Exit.REFUSED if any(f.level is Level.FAIL for f in findings) else Exit.OK


def examine(socket: str, config_path: str | None, timeout: float | None) -> Iterator[Finding]:
    """All findings, in the order in which to put things right."""
    config, findings = check_config(config_path)
    yield from check_engine(config.edge_engine if config is not None else "auto")
    if config is None or "gpu" in config.edge_accelerators:
        yield from check_gpu()
    yield from findings
    if config is not None:
        agent = _agents_user(socket, config)
        yield from check_trust(Path(config.core_root_certs_path), time.time(), agent)
        yield from check_folders(config, agent)
        yield from check_device_files(config, agent)
        yield from check_models(config, agent)
        yield from doctor_fleet.check_fleet(config, agent)
    yield from check_clock()
    yield from check_shared_memory(Path("/proc/sys/kernel"))
    yield from check_memory(Path("/proc/meminfo"))
    yield from check_socket(socket, timeout)


def check_engine(choice: str = "auto") -> Iterator[Finding]:
    """The engines that models are tried with are there and start, the first choice first."""
    engines = Engines(choice)
    for name in engines.for_model(SessionOptions()):
        try:
            engines.prepare(name)
        except TargetError as error:
            yield fail("engine", str(error), "install the agent's requirements again")
        except Exception as error:  # noqa: BLE001 (a broken native library fails in its own ways)
            yield fail("engine", f"{name} does not start: {error}", "install the agent's requirements again")
        else:
            yield ok("engine", engines.describe(name))


def check_gpu() -> Iterator[Finding]:
    """Where the GPU's library is installed, a model runs on the GPU."""
    try:
        wanted = litert.gpu_folder() == litert.GPU_FOLDER  # it was installed for its own sake
    except TargetError:
        return
    try:
        found = find_gpu()
    except MemoryLimitError as error:
        yield warn("gpu", str(error), "look at what else runs on this device")
        return
    if found.fault and not found.adapter and not wanted:
        return
    if found.fault:
        name = f"{found.adapter}: " if found.adapter else ""
        yield warn(
            "gpu", f"{name}{found.fault}", "models that ask for it run on the CPU; install the GPU's Vulkan driver"
        )
    else:
        yield ok("gpu", found.adapter or "a model runs on it")


def check_config(path: str | None) -> tuple[Config | None, list[Finding]]:
    """The configuration is valid; its warnings are shown."""
    if path is None:
        if not Path(INSTALLED_CONFIG).exists():
            text = "none given and none installed; trust, folders and certificates are not checked"
            return None, [warn("configuration", text, "name it: doctor -c CONFIG")]
        path = INSTALLED_CONFIG
    try:
        loaded = load_config(path)
    except ConfigError as error:
        faults = str(error).splitlines()
        findings = [fail("configuration", fault, f"correct {path}") for fault in faults]
        return None, findings + [warn("configuration", text, f"look at {path}") for text in error.warnings]
    findings = [ok("configuration", path)]
    findings += [warn("configuration", text, f"look at {path}") for text in loaded.warnings]
    return loaded.config, findings


def check_trust(folder: Path, now: float, user: int) -> Iterator[Finding]:
    """Trusted roots are there, locked, readable for the agent's user and in date (S-3, S-4)."""
    subject = "trusted roots"
    try:
        found = trust_folder.weakness(Path(os.path.realpath(folder, strict=True)), user)
        files = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except NotADirectoryError:
        yield fail(subject, f"{folder} is not a folder", f"mkdir -p {folder}, and put the signers' roots there")
        return
    except OSError as error:
        yield fail(subject, f"{folder}: {error.strerror}", f"mkdir -p {folder}, and let the agent's user read it")
        return
    if found:
        text, _, command = found.partition("; run: ")
        yield fail(subject, text, command)
    if not files:
        yield fail(subject, f"no *.pem in {folder}; every model will be refused", "put the signers' root there")
    for file in files:
        yield from _check_root(file, now, user)


def _check_root(file: Path, now: float, user: int) -> Iterator[Finding]:
    from edge.package.trust import NoRootError, read_root

    subject = "trusted root"
    try:
        certificates = read_root(file, user)
    except NoRootError as reason:
        yield warn(subject, f"{file} {reason}, and is ignored", "replace or remove it")
        return
    except TrustError as error:
        text, _, command = str(error).partition("; run: ")
        yield fail(subject, text, command)
        return
    for certificate in certificates:
        name = certificate.subject.rfc4514_string()
        days = (certificate.not_valid_after_utc.timestamp() - now) / 86400
        if days < 0:
            yield fail(subject, f"{name} has expired", f"sign with a newer root and replace {file}")
        elif certificate.not_valid_before_utc.timestamp() > now:
            yield warn(subject, f"{name} is not valid yet", "check this machine's clock")
        elif days < EXPIRES_SOON_DAYS:
            yield warn(subject, f"{name} expires in {days:.0f} days", "add its successor beside it")
        else:
            yield ok(subject, f"{name}, {days:.0f} days left")


def _agents_user(socket: str, config: Config) -> int:
    """The user of the agent that runs, else whose the spool is, else whoever asks."""
    try:
        return peer_credentials(socket)[0]
    except CommandError:
        spool = Path(config.edge_spool_path)
        return spool.stat().st_uid if spool.exists() else os.geteuid()


def check_folders(config: Config, agent: int) -> Iterator[Finding]:
    """Captures and spool have a place, with room, that the user `agent` may write to."""
    places = {"spool": Path(config.edge_spool_path)}
    if config.core_capture_data_destination == "Disk":
        places["captures"] = Path(config.core_capture_data_disk_path)
    for subject, folder in places.items():
        there = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
        inodes = None
        try:
            free, state = shutil.disk_usage(there).free, os.statvfs(there)
            inodes = state.f_favail if state.f_files else None  # some file systems have no bound, and say 0
            owner = pwd.getpwuid(there.stat().st_uid).pw_name
        except (OSError, KeyError):
            free, owner = None, "its owner"
        if not there.is_dir():
            yield fail(subject, f"{there} is not a folder", f"choose another path for {folder}")
        elif free is None:
            yield warn(subject, f"{folder} cannot be examined", "run doctor as the agent's user")
        elif free < config.edge_spool_min_free_mib << 20:
            limit = show.size(config.edge_spool_min_free_mib << 20)
            yield fail(
                subject,
                f"{show.size(free)} free at {there}; captures are refused below {limit}",
                "free some disk space",
            )
        elif inodes is not None and inodes < LEAST_INODES:
            yield fail(subject, f"{inodes} inodes free at {there}; captures are refused", "remove small files there")
        elif not os.access(there, os.W_OK | os.X_OK):
            text = f"{folder} cannot be used: you may not write to {there}; it belongs to {owner}"
            if agent == os.geteuid():
                yield fail(subject, text, "let the agent's user write to it, or name another folder")
            else:
                yield warn(subject, text, "see that the agent's user may")
        else:
            yield ok(subject, f"{folder}, {show.size(free)} free")


def check_device_files(config: Config, agent: int) -> Iterator[Finding]:
    """The certificates and keys that captures go to the cloud with, and that edge_listen has."""
    cloud = ("provider_aws_ca_cert_file", "provider_aws_cert_file", "provider_aws_cert_pk_file", "edge_ca_bundle")
    if config.provider_provider == "Aws":
        yield from _check_files(config, "cloud", cloud, agent)
    if config.edge_listen:
        yield from _check_files(config, "edge_listen", LISTEN_TLS, agent)


def _check_files(config: Config, subject: str, names: Sequence[str], agent: int) -> Iterator[Finding]:
    for name in names:
        file = access.credential_path(getattr(config, name))
        if not file:
            continue
        if access.is_credential(file):
            yield warn(subject, f"{file} belongs to the service and is not checked", "see: sagemaker-edge-agent status")
        elif not Path(file).is_file():
            yield fail(subject, f"{file} is not there", f"correct {full_key(name)}")
        elif not os.access(file, os.R_OK):
            yield warn(subject, f"you may not read {file}", "see that the agent's user may")
        elif name.endswith(("pk_file", "key_file")) and (others := access.others(file, agent)):
            text = f"the private key {file} can be used by {', '.join(others)}"
            yield fail(subject, text, access.how_to_fix(file, agent))
        else:
            yield ok(subject, file)


def check_clock() -> Iterator[Finding]:
    """The clock is set (S-6)."""
    clock = SystemClock()
    _, built = version()
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock.now())) + " UTC"
    if clock.now() < built:
        yield fail("clock", f"{shown} is before this agent was built", "set the clock, or wait for NTP")
    elif not clock.synchronised():
        text = f"{shown}, not synchronised; certificates are judged as of the build date or their own start"
        yield warn("clock", text, "start an NTP client (systemd-timesyncd, chrony)")
    else:
        yield ok("clock", f"{shown}, synchronised")


def check_shared_memory(kernel: Path) -> Iterator[Finding]:
    """The kernel allows segments as large and as many as clients may want."""
    try:
        most, pages, count = (int((kernel / name).read_text()) for name in ("shmmax", "shmall", "shmmni"))
    except (OSError, ValueError):
        yield warn("shared memory", "this kernel has no System V shared memory", "send tensors inline")
        return
    total = pages * os.sysconf("SC_PAGE_SIZE")
    if min(most, total) < LEAST_SEGMENT_BYTES:
        yield warn(
            "shared memory",
            f"a segment may have {show.size(min(most, total))}",
            f"sysctl -w kernel.shmmax={LEAST_SEGMENT_BYTES} kernel.shmall={LEAST_SEGMENT_BYTES // 4096}",
        )
    else:
        yield ok("shared memory", f"up to {count} segments")


def check_memory(meminfo: Path) -> Iterator[Finding]:
    """There is memory to load a model into."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return
    if available < LEAST_MEMORY_BYTES:
        yield warn("memory", f"{show.size(available)} available", "unload models, or stop other programs")
    else:
        yield ok("memory", f"{show.size(available)} available")


def check_socket(path: str, timeout: float | None) -> Iterator[Finding]:
    """The agent answers, and is the release that this client is."""
    from grpc_health.v1 import health_pb2

    from edge.rpc._generated import operations_pb2 as ops

    try:
        uid, gid = peer_credentials(path)
    except CommandError:
        yield fail("agent", why_unreachable(path), _how_to_reach(path))
        return
    yield _open_to(path, uid, gid)
    with Agent(path, timeout) as agent:
        try:
            state = agent.call(HEALTH + "Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse).status
            reply = agent.call(OPERATIONS + "GetStatus", ops.GetStatusRequest(), ops.GetStatusResponse)
        except CommandError as error:
            yield fail("agent", str(error), "see its log: journalctl -u sagemaker-edge-agent")
            return
    if state != health_pb2.HealthCheckResponse.SERVING:
        yield fail("agent", "it is not serving", "see its log: journalctl -u sagemaker-edge-agent")
    elif reply.version != version()[0]:
        yield warn("agent", f"release {reply.version} runs, this is {version()[0]}", "restart the agent")
    else:
        yield ok("agent", f"release {reply.version} serves on {address.display(path)}")
    if reply.HasField("fleet"):
        yield from doctor_fleet.standing(reply.fleet, time.time())
    captures = reply.captures
    if captures.refusing_since_unix_seconds:
        since = show.duration(time.time() - captures.refusing_since_unix_seconds)
        text = f"refused for {since}, {captures.refused} since the agent started"
        yield fail("captures", text, "see the last error below, and the agent's log")
    elif captures.refused:
        yield warn(
            "captures", f"{captures.refused} were refused since the agent started", "see the agent's log for why"
        )
    if captures.last_error:
        ago = show.duration(time.time() - reply.captures.last_error_unix_seconds)
        yield warn("captures", f"{reply.captures.last_error} ({ago} ago)", "see: sagemaker-edge-agent status")


def _how_to_reach(path: str) -> str:
    """What to do where nobody answers on a socket."""
    if address.is_abstract(path):
        return "start it: sagemaker-edge-agent -a SOCKET -c CONFIG"
    ways = [(place, os.X_OK) for place in reversed(Path(path).absolute().parents)] + [(Path(path), os.W_OK)]
    closed = next((place for place, right in ways if os.access(place, os.F_OK) and not os.access(place, right)), None)
    if closed is None:
        return "start it: sagemaker-edge-agent -a SOCKET -c CONFIG"
    try:
        state, owner, group = closed.stat(), closed.owner(), closed.group()
        user = pwd.getpwuid(os.geteuid())[0]
    except (OSError, KeyError):
        return f"ask for the right to use {closed}"
    right = stat.S_IXGRP if stat.S_ISDIR(state.st_mode) else stat.S_IWGRP
    if state.st_gid and state.st_mode & right:
        return f"adduser {user} {group}, and log in again"
    rights = f"{closed} has mode {stat.S_IMODE(state.st_mode):04o} and belongs to {owner}:{group}"
    return f"use sudo, or let a group of applications in ({rights}): Group=, UMask= and RuntimeDirectoryMode= of the agent's unit"


def _open_to(path: str, uid: int, gid: int) -> Finding:
    def name_of(find: Callable[[int], tuple[str, ...] | pwd.struct_passwd | grp.struct_group], number: int) -> str:
        try:
            return str(find(number)[0])
        except KeyError:
            return str(number)

    user, group = name_of(pwd.getpwuid, uid), name_of(grp.getgrgid, gid)
    if address.is_abstract(path):
        text = f"{address.display(path)}, held by {user}:{group}: everybody may use the models"
        return warn("socket", text, "name a path in a folder that only a group may enter")
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    text = f"{path}, mode {mode:04o}, held by {user}:{group}"
    if mode & 0o002:
        return warn("socket", f"{text}: everybody may use the models", "put it in a folder that only a group may enter")
    return ok("socket", text)
