"""The report's page: one file without script and without anything from outside, and a policy in it that says so."""

import base64
import hashlib
from collections.abc import Iterable, Sequence

from edge.client.captures.charts import text

_STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#1b2330;--pale:#5d6878;--line:#dfe3e9;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#11151b;--card:#1a2029;--ink:#e6eaf0;--pale:#98a3b3;--line:#2c3542;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0}
h2{font-size:20px;margin:40px 0 12px;padding-top:20px;border-top:1px solid var(--line)}
h3{font-size:14px;margin:0 0 10px;font-weight:600}
p{margin:4px 0 12px}
.pale,figcaption span{color:var(--pale)}
.bad{color:var(--bad)}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:0 0 16px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 16px;min-width:120px}
.tile b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.tile span{font-size:12px;color:var(--pale)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:16px}
@media(max-width:460px){.charts{grid-template-columns:1fr}}
.chart,.wide{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:0}
.wide{margin-top:16px;overflow-x:auto}
svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--pale)}
svg line{stroke:var(--line)}
.end{text-anchor:end}.mid{text-anchor:middle}
.key{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12px;color:var(--pale);margin-top:8px}
.key svg{display:inline-block;width:10px;height:10px;margin-right:5px}
.c0{fill:#3b6fd4}.c1{fill:#e0813a}.c2{fill:#3a9d6c}.c3{fill:#c2457a}.c4{fill:#8a63c9}.c5{fill:#2ba3b4}.c6{fill:#b39b25}
.c7{fill:#7d5a44}.c8{fill:#5f8f2f}.c9{fill:#d1584f}.c10{fill:#8b95a3}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:12px}
figure.card{margin:0;font-size:13px;line-height:1.35}
figure.card img,.blank{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:#0d1117;border-radius:8px;image-rendering:pixelated}
.blank{color:#98a3b3;padding:8px;font-size:11px;overflow:hidden;overflow-wrap:anywhere}
figcaption{margin-top:5px;overflow-wrap:anywhere}
figcaption b{font-size:16px}
figcaption i{font-style:normal;float:right;font-variant-numeric:tabular-nums}
figcaption i.low{color:var(--bad);font-weight:600}
figcaption span{display:block;font-size:11px}
table{border-collapse:collapse;font-size:13px;width:100%}
th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
th{color:var(--pale);font-weight:500}
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole page."""
    hashed = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body><main>\n"
    )
    return head + "\n".join(body) + "\n</main></body></html>\n"


def tiles(facts: Sequence[tuple[str, str]]) -> str:
    """A few numbers, each with what it is."""
    made = "".join(f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span></div>' for what, value in facts)
    return f'<div class="tiles">{made}</div>'


def chart(title: str, drawn: str, colours: dict[str, str] | None = None) -> str:
    """A chart under its title, with what its colours mean."""
    squares = "".join(
        f'<span><svg viewBox="0 0 10 10"><rect width="10" height="10" rx="2" class="{colour}"/></svg>'
        f"{text(word, 40) or '(none)'}</span>"
        for word, colour in (colours or {}).items()
    )
    key = f'<div class="key">{squares}</div>' if squares else ""
    return f'<section class="chart"><h3>{text(title)}</h3>{drawn}{key}</section>'


def wide(title: str, inside: str) -> str:
    """A box as wide as the page."""
    return f'<section class="wide"><h3>{text(title)}</h3>{inside}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows below their heads."""
    heads = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def data_uri(png: bytes) -> str:
    """A picture inside the page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
