"""The page's style: one column, system type, ten colours that read on light and on dark."""

LIGHT = ("#2563c9", "#d9622b", "#178a63", "#8b4fc6", "#c23a6b", "#0f8aa3", "#a37a0a", "#5b6472", "#6a8f1f", "#a0522d")
DARK = ("#6ea8ff", "#ff9a66", "#4ccb9a", "#c093f5", "#ff7fa8", "#4fc7de", "#e0b84a", "#a7b0bd", "#a9d15a", "#d99873")


def _arches(colours: tuple[str, ...]) -> str:
    return "".join(f"--arch-{i}:{colour};" for i, colour in enumerate(colours))


VARIABLES = (
    f":root{{color-scheme:light dark;--bg:#fff;--ink:#15181d;--muted:#626a76;--grid:#e4e7ec;--card:#f8f9fb;"
    f"--good:#178a63;--bad:#c8102e;{_arches(LIGHT)}"
    "--font:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}"
    f"@media(prefers-color-scheme:dark){{:root{{--bg:#111419;--ink:#eceff4;--muted:#98a1ae;--grid:#2a303a;--card:#171b22;"
    f"--good:#4ccb9a;--bad:#ff6b7d;{_arches(DARK)}}}}}"
)
"""The colours and the font, which every figure refers to."""

CSS = (
    VARIABLES
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 var(--font)}
main{max-width:1120px;margin:0 auto;padding:56px 28px 80px}
header{margin-bottom:40px}
.kicker{margin:0;color:var(--muted);font-size:14px;letter-spacing:.02em}
h1{font-size:40px;line-height:1.15;letter-spacing:-.02em;margin:4px 0 8px;font-weight:680}
.facts{margin:0;color:var(--muted)}
section{border-top:1px solid var(--grid);padding-top:32px;margin-top:48px}
h2{font-size:26px;letter-spacing:-.01em;margin:0 0 4px;font-weight:660}
h2 span,summary span,li span{color:var(--muted);font-weight:400}
h3{font-size:17px;margin:36px 0 10px}
.lead{margin:0 0 16px;color:var(--muted);max-width:76ch}
.verdict{font-size:18px;max-width:70ch;margin:0 0 20px}
.verdict.won{font-weight:600}
.hero{max-width:860px}
svg{width:100%;height:auto;display:block;overflow:visible}
.note{color:var(--muted);font-size:13.5px;margin:8px 0 0;max-width:90ch}
.scroll{overflow-x:auto;margin-top:24px}
table{border-collapse:collapse;font-size:14px;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px 7px 0;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap;vertical-align:top}
th:first-child,td.seeds{text-align:left}
td.seeds{white-space:normal;min-width:120px}
thead th{color:var(--muted);font-weight:500;font-size:12.5px;vertical-align:bottom;white-space:normal}
tbody th{font-weight:600}
tbody th i{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:8px}
td b{font-weight:650}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:20px;margin-top:28px}
figure{margin:0;background:var(--card);border-radius:12px;padding:18px 20px 14px}
figcaption{font-size:13.5px;color:var(--muted);margin-bottom:10px}
figcaption b{color:var(--ink);font-size:15px;font-weight:620;margin-right:6px}
ul.checks{list-style:none;padding:0;margin:0;font-size:14.5px}
ul.checks li{padding:5px 0 5px 22px;position:relative}
ul.checks li::before{content:"";position:absolute;
 left:2px;top:12px;width:9px;height:9px;border-radius:50%;background:var(--good)}
ul.checks li.bad::before{background:var(--bad)}
ul.checks li b{font-weight:600;margin-right:6px}
li.good b{color:var(--good)}
.bad,li.bad b,li.bad,li.bad span{color:var(--bad)}
details{border-bottom:1px solid var(--grid);padding:7px 0;font-size:14px}
summary{cursor:pointer;font-weight:600}
summary span{margin-left:8px}
pre{overflow-x:auto;background:var(--card);border-radius:8px;padding:14px;font-size:12.5px;line-height:1.45}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{overflow-wrap:anywhere;font-size:.92em}
footer{border-top:1px solid var(--grid);margin-top:56px;padding-top:20px;color:var(--muted);font-size:13.5px}
footer p{margin:4px 0}
@media(max-width:640px){main{padding:32px 16px}h1{font-size:30px}.figures{grid-template-columns:1fr}}
@media print{figure{break-inside:avoid}}
"""
)
