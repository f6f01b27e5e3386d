"""Every metric: its name, type, unit, labels and meaning. docs/metrics.md is generated from it. Pure.

Names follow Prometheus' conventions: base units, the unit last, `_total` behind a counter. All begin with `edge_agent_`, those of
the process too: node_exporter has process metrics of its own beside what it takes from a file.
"""

from dataclasses import dataclass
from enum import Enum

PREFIX = "edge_agent_"


class Kind(Enum):
    """A metric's type, as the text formats call it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True)
class Metric:
    """One family. `name` is without what its type adds to it (`_total`, `_info`, `_bucket` ...)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def series(self) -> str:
        """The name that a query uses; of a histogram the first part of it."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")


_MODEL = ("model", "version")


def _metric(kind: Kind, name: str, help: str, *labels: str) -> Metric:
    unit = name.rsplit("_", 1)[-1]
    return Metric(PREFIX + name, kind, help, labels, unit if unit in ("seconds", "bytes") else "")


def counter(name: str, help: str, *labels: str) -> Metric:
    """A count since the start."""
    return _metric(Kind.COUNTER, name, help, *labels)


def gauge(name: str, help: str, *labels: str) -> Metric:
    """A value now."""
    return _metric(Kind.GAUGE, name, help, *labels)


def histogram(name: str, help: str, *labels: str) -> Metric:
    """How often each of some sizes was, since the start."""
    return _metric(Kind.HISTOGRAM, name, help, *labels)


def info(name: str, help: str, *labels: str) -> Metric:
    """Words, as labels of a value that is always 1."""
    return _metric(Kind.INFO, name, help, *labels)


BUILD = info("build", "The release, and the first choice of engine for models; always 1.", "version", "engine")
START = gauge("start_time_seconds", "When the agent started, in Unix time.")
READY = gauge("ready", "1 where what is to serve from the start does, else 0.")
RESIDENT = gauge("resident_memory_bytes", "Resident memory of the agent's process.")
OPEN_FDS = gauge("open_fds", "Open descriptors of the agent's process.")
FDS_LIMIT = gauge("max_fds", "Descriptors that the agent's process may have open.")
CPU = counter("cpu_seconds", "Processor time of the agent's process, user and system.")

CALLS = counter(
    "calls",
    "Calls that were answered, by gRPC service, method and status.",
    "service",
    "method",
    "code",
)

REFUSED = counter(
    "calls_refused",
    "Calls that were refused before a method saw them, by gRPC status: too many at a time, no such method.",
    "code",
)
MODEL_CALLS = counter(
    "model_calls",
    "Predict and ModelInfer calls on a model since it was loaded, by gRPC status.",
    *_MODEL,
    "code",
)
ENDED = counter(
    "model_ended_inferences",
    "Inferences that were ended before they had an answer, by why: cancelled and deadline of their call; stuck.",
    *_MODEL,
    "reason",
)
INFERENCE = histogram(
    "model_inference_seconds", "How long calls that were answered had an instance of the model.", *_MODEL
)
QUEUE = histogram(
    "model_queue_seconds", "How long calls waited for an instance; those that did not wait are not in it.", *_MODEL
)
RUNNING = gauge("model_running", "Calls in the engine now.", *_MODEL)
WAITING = gauge("model_waiting", "Calls in the model's queue now.", *_MODEL)
INSTANCES = gauge("model_instances", "Instances of the model, which run at the same time.", *_MODEL)
MODEL_MEMORY = gauge("model_memory_bytes", "Memory that the model was measured to take.", *_MODEL)
MISLABELLED = counter(
    "model_mislabelled_calls", "Calls with a tensor that was declared as something that its bytes are not.", *_MODEL
)
MODELS = gauge("models", "Models by state: LOADING, WARMING, READY, DRAINING.", "state")
RESERVED = gauge("memory_reserved_bytes", "Memory that all loaded models were measured to take.")
BUDGET = gauge("memory_budget_bytes", "edge_memory_budget_mib; 0: what the system has.")
TRIALS = counter(
    "trials", "Trials of a package's model in a child process before it serves, by result: passed, refused.", "result"
)
SWAPS = counter("swaps", "Models that took the place of another under its name.")
DECLARED = gauge("declared_models", "Declared models, by whether they serve as declared: yes, no.", "serves")
ROLLBACKS = counter("rollbacks", "Declared versions that were taken back.")

CAPTURES = counter(
    "captures",
    "Captures by what became of them: accepted and refused at the call; succeeded, failed and dropped later.",
    "result",
)
POLICY_CAPTURES = counter(
    "policy_captures",
    "Calls that capture policies chose: kept; and dropped, for want of room or of a disk that takes them.",
    "result",
)
CAPTURES_WAITING = gauge("captures_waiting", "Captures that were accepted and are not finished.")
CAPTURES_OLDEST = gauge(
    "captures_oldest_waiting_timestamp_seconds",
    "When the oldest waiting capture was accepted, in Unix time; 0: none waits.",
)
CAPTURES_REFUSING = gauge(
    "captures_refusing_since_timestamp_seconds", "Since when captures are refused, in Unix time; 0: they are taken."
)
SPOOL = gauge("spool_bytes", "Bytes of waiting captures on disk.")
SPOOL_FILES = gauge("spool_files", "Files of waiting captures.")
SPOOL_MAX = gauge("spool_max_bytes", "edge_spool_max_mib.")
SPOOL_MAX_FILES = gauge("spool_max_files", "edge_spool_max_files.")
UPLOADS = counter(
    "uploads",
    "Attempts to store an object, by what became of them: stored; retried at once; failed and refused, tried again later; given_up.",
    "result",
)

ROUNDS = counter("watchdog_rounds", "Rounds of the watchdog, by what they found: alive, stuck.", "result")
BEAT = gauge(
    "watchdog_alive_timestamp_seconds", "When the watchdog last found the agent alive, in Unix time; 0: not yet."
)

FLEET = info("fleet_deployment", "The fleet, and what it has declared on this device; always 1.", "fleet", "deployment")
FLEET_STATE = gauge(
    "fleet_state",
    "1 for the state of the fleet's deployment: switching, trying, committed or refused; 0 for others.",
    "state",
)
FLEET_REFUSED = gauge("fleet_models_refused", "Models that the fleet wants and that do not serve.")
FLEET_CHECKED = gauge(
    "fleet_checked_timestamp_seconds",
    "When the fleet's repository was last asked with success, in Unix time; 0: not in this run.",
)
FLEET_FAILING = gauge("fleet_failing", "1 where the last round of the fleet did not go through, else 0.")
FLEET_FAULTS = counter(
    "fleet_internal_errors", "Errors of the fleet's rounds that the agent did not expect; its log has them."
)
FLEETS = (
    FLEET,
    FLEET_STATE,
    FLEET_REFUSED,
    FLEET_CHECKED,
    FLEET_FAILING,
    FLEET_FAULTS,
)  # of an agent that is in a fleet

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
