"""A fleet as one self-contained page of HTML: progress, versions, failures over time, devices. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from edge.fleet.document import Document
from edge.fleet.overview import Overview
from edge.fleet.standing import moment, standing

DAYS = 14  # of failures that the page shows
NAMED = 10  # devices with one worry that are named; the others are counted
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
.bar{display:flex;height:1.2rem;border-radius:.3rem;overflow:hidden;background:#d8dee4;max-width:40rem}
.ok{background:#2da44e}.bad{background:#cf222e}.key span{display:inline-block;width:.8rem;height:.8rem;margin:0 .3rem 0 1rem}
.days{display:grid;grid-template-columns:auto repeat(14,1.6rem);gap:.2rem;align-items:center;font-size:.8rem}
.day{height:1.4rem;border-radius:.2rem;background:#eef1f4;text-align:center}
time,td:first-child{white-space:nowrap}.silent{color:#9a6700}.failed{color:#cf222e}small{color:#59636e}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}.day,.bar{background:#30363d}}
"""


def page(fleets: Iterable[tuple[Overview, Document | None]], now: float) -> str:
    """The page; `now` in seconds since the epoch."""
    body = "".join(_fleet(overview, document, now) for overview, document in fleets)
    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    whole = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Fleets</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>Fleets</h1><small>as of {made}</small>{body}</body></html>\n"
    )
    return whole.encode(errors="replace").decode()  # devices may tell of what is no text


def _fleet(overview: Overview, document: Document | None, now: float) -> str:
    parts = [f"<h2>{escape(overview.fleet)}</h2>"]
    if document is None:
        parts.append("<p>Nothing was deployed yet.</p>")
    else:
        parts.append(_progress(overview, document))
    parts += [_versions(overview), _worries(overview), _failures(overview, now), _devices(overview, document, now)]
    return "".join(parts)


def _progress(overview: Overview, document: Document) -> str:
    name = document.deployment
    good, bad, open_ = len(overview.well.get(name, ())), len(overview.failed(name)), len(overview.waiting(name))
    whole = max(1, good + bad + open_)
    return (
        f"<p>Deployment <b>{escape(name)}</b>: {good} serve it, {bad} failed, {open_} have not reported.</p>"
        f'<div class="bar" role="img" aria-label="{good} ok, {bad} failed, {open_} open">'
        f'<div class="ok" style="width:{100 * good / whole:.2f}%"></div>'
        f'<div class="bad" style="width:{100 * bad / whole:.2f}%"></div></div>'
        '<small class="key"><span class="ok"></span>serves it<span class="bad"></span>failed</small>'
    )


def _versions(overview: Overview) -> str:
    rows = [
        [escape(alias), escape(version or "nothing"), str(count)]
        for alias, versions in sorted(overview.versions().items())
        for version, count in versions.most_common()
    ]
    return _table(["Alias", "Version", "Devices"], rows) if rows else ""


def _worries(overview: Overview) -> str:
    rows = []
    for worry, devices in overview.worries().items():
        more = len(devices) - NAMED
        rows.append(
            [str(len(devices)), escape(worry), escape(", ".join(devices[:NAMED])) + f" and {more} more" * (more > 0)]
        )
    return "<h3>What asks for a person</h3>" + _table(["Devices", "What", "Which"], rows) if rows else ""


def _failures(overview: Overview, now: float) -> str:
    if not overview.failures:
        return "<p>No deployment has failed.</p>"
    today = int(now // 86_400)
    days = Counter((one.deployment, int(one.at // 86_400)) for one in overview.failures)
    cells = []
    for deployment in sorted({one.deployment for one in overview.failures}):
        cells.append(f"<div>{escape(deployment)}</div>")
        for day in range(today - DAYS + 1, today + 1):
            count = days[deployment, day]
            date = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
            shade = f' style="background:rgba(207,34,46,{min(1, 0.3 + count / 10):.2f})"' if count else ""
            cells.append(f'<div class="day" title="{date}: {count}"{shade}>{count or ""}</div>')
    rows = [
        [
            escape(one.device),
            escape(one.deployment),
            _when(one.at),
            "<br>".join(f"{escape(alias)}: {escape(why)}" for alias, why in sorted(one.reasons.items())),
        ]
        for one in sorted(overview.failures, key=lambda one: -one.at)
    ]
    return f'<h3>Failures, the last {DAYS} days</h3><div class="days">{"".join(cells)}</div>' + _table(
        ["Device", "Deployment", "When", "Why"], rows
    )


def _devices(overview: Overview, document: Document | None, now: float) -> str:
    silent = set(overview.silent(now))
    failed = {one.device for one in overview.failed(document.deployment)} if document is not None else set()
    rows = []
    for device, one in sorted(overview.heartbeats.items()):
        models = one.get("models")
        serving = (
            ", ".join(f"{alias}: {model.get('version', '')}" for alias, model in sorted(models.items()))
            if isinstance(models, dict) and all(isinstance(model, dict) for model in models.values())
            else ""
        )
        state = '<span class="silent">silent</span>' if device in silent else "heard of"
        state += ', <span class="failed">failed</span>' if device in failed else ""
        stands = standing(one)
        state += "".join(f'<br><span class="silent">{escape(worry)}</span>' for worry in stands.worries)
        times = [_when(at) if at else "" for at in (moment(one.get("at")), stands.inference, stands.capture)]
        rows.append([escape(device), state, escape(str(one.get("agent", ""))), escape(serving), *times])
    rows.sort(key=lambda row: "class=" not in row[1])  # who is in trouble comes first
    return (
        "<h3>Devices</h3>"
        + _table(["Device", "State", "Agent", "Serves", "Last heard of", "Last inference", "Last capture"], rows)
        if rows
        else "<p>No device has told of itself.</p>"
    )


def _when(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("<time>%Y-%m-%d %H:%M</time>")
    except (ValueError, OverflowError, OSError):
        return ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{lines}</table>"
