"""Attacks on a live agent, one mechanism each, while an honest client is served beside (tests.adversary.conftest).

The numbers are those of the attacks that were found once; each is tried by

| # | attack | test |
|---|---|---|
| 1 | shapes of very many dimensions | test_requests: dear to read, "many dimensions" |
| 2 | calls cancelled at once | test_streams: cancelled at once |
| 3 | millions of empty tensors | test_requests: dear to read, "empty tensors" |
| 4 | messages that are half sent | test_streams: half sent |
| 5 | captures of very many names | test_requests: captures dear to read, "many names, the last two equal" |
| 6 | a signed model that grows while it is read | test_packages: grows while it is read |
| 7 | shapes that take more than the budget | test_models |
| 8 | refused captures of segments never written | test_segments: never written |
| 9 | a signature of very many keys | test_packages: unsigned, "signature of many keys" |
| 10 | archives of headers and folders | test_packages: unsigned, "archive of ..." |
| 11 | calls without a message | test_streams: do not come, in a flood |
| 12 | many captures of one id behind a slow one | test_captures: a write that stalls |
| 13 | a store's answer with the year 9999 | test_captures: hostile store, "year 9999" |
| 14 | a peer's last words that look like log lines | test_surroundings: last words |
| 15 | values that make a model work for long | test_values: work for long |
| 16 | a model's file larger than the budget | test_packages: larger than the budget |
| 17 | a lease on a package's file | test_packages: a lease |
| 18 | a segment's mode that changes again and again | test_segments: changes again and again |
| 19 | segments that the caller may not read, or that mean others | test_segments: may not read, means another |
| 20 | one write that stalls | test_captures: a write that stalls |
| 21 | roots that others could change | test_surroundings: others could change |
| 22 | a store that continues for ever | test_captures: hostile store, "100 Continue for ever" |
| 23 | a capture of very many files | test_captures: many files |
| 24 | a name of control characters | test_requests: captures dear to read, "a name of control characters" |
| 25 | headers that cannot be read | test_streams: cannot be read |
| 26 | values that ended in INTERNAL | test_values: no call may have |
| 27 | a disk that others fill | test_surroundings: others fill |
| 28 | a store's bare 413 | test_captures: hostile store, "bare 413" |
|   | escape sequences on the operator's terminal | test_surroundings: steers the terminal |
|   | a segment that was removed | test_segments: was removed |
|   | a pipe or links in the spool | test_surroundings: others prepared |
|   | limits of descriptors and of a file's size | test_surroundings: limits of the process, without descriptors |
|   | times that cannot be | test_surroundings: times that cannot be |
|   | an access key's id in a store's error | test_captures: hostile store, "key in an error" |
|   | limits of processes and threads | test_surroundings: without threads |
|   | memory of large requests that are refused | test_requests: comes back |
|   | the largest message there is | test_requests: three times its size |
|   | large requests that wait for a slow model | test_requests: wait for a slow model, of many clients |
|   | answers that nobody reads, streams that nobody ends | test_answers |
|   | scrapers that say nothing, or do not read | test_metrics |

Each asserts that the agent takes 128 MiB more at most, but one: of one message of 64 MiB, the largest there is by default, gRPC's
binding has three copies for a moment (test_requests: "three times its size"). It asserts 224.

29, a member that unloads or replaces a model, is refused where `edge_admins` is set: tests.system.test_admins.

Four of the low ones have nothing to be served beside, for no agent takes part in them: the client that meets an enum's value of a
later release (tests.unit.test_client_show) or another's socket in /tmp (test_client_connection), the mode of the folder of models
that is made at the installation (test_package_hostile), and the bounds in the unit's file (test_memory).
"""
