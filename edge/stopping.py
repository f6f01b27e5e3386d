"""The time that a stop may take, and each step's share of it (X-4).

The steps come one after another: the watchdog ends, calls in flight have their grace, those that outlive it are cancelled,
the threads that served them end, deployments note how they stand, calls chosen by policy and captures are brought to disk.
What a step leaves of its share is the captures', for theirs comes last. A round of the fleet and the metrics end beside all
this, and are waited for with what is left.
"""

STOP_SECONDS = 8.0  # from the signal to the exit

WATCHDOG_SECONDS = STOP_SECONDS / 16
GRACE_SECONDS = STOP_SECONDS / 2  # for calls in flight
CONNECTIONS_SECONDS = STOP_SECONDS / 32  # for clients without calls to close their connections
CANCELLED_SECONDS = STOP_SECONDS / 16  # for gRPC to tell their clients
THREADS_SECONDS = STOP_SECONDS / 16
MODELS_SECONDS = STOP_SECONDS / 8  # for a change of deployments that is under way
KEEPER_SECONDS = STOP_SECONDS / 16
CAPTURES_SECONDS = (
    STOP_SECONDS
    - WATCHDOG_SECONDS
    - GRACE_SECONDS
    - CONNECTIONS_SECONDS
    - CANCELLED_SECONDS
    - THREADS_SECONDS
    - MODELS_SECONDS
    - KEEPER_SECONDS
)
