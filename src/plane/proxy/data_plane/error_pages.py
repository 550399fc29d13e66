"""The pages of the proxy's own: small, self-contained, accessible. `responses` makes complete responses of them."""

from __future__ import annotations

import html
from typing import Final

__all__ = ["error_page", "waiting_page"]

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
{head}<style>
body {{ font: 1.125rem/1.5 system-ui, sans-serif; margin: 0; min-height: 100vh; display: grid; place-items: center; }}
main {{ max-width: 32rem; padding: 2rem; }}
h1 {{ font-size: 1.5rem; }}
</style>
</head>
<body>
<main{attributes}>
<h1>{title}</h1>
<p>{text}</p>
{rest}</main>
</body>
</html>
"""

# Requests the same address. The response comes when the process is ready, or has failed.
_WAITING_HEAD: Final = '<noscript><meta http-equiv="refresh" content="5"></noscript>\n'
_WAITING_SCRIPT: Final = """<script>
const again = () => fetch(location.href, { method: "HEAD", redirect: "manual", cache: "no-store" })
  .then(() => location.reload(), () => setTimeout(again, 2000));
again();
</script>
"""


def error_page(title: str, text: str) -> bytes:
    """Return a page that says what happened (``title``) and what to do about it (``text``)."""
    filled = _PAGE.format(title=html.escape(title), text=html.escape(text), head="", attributes="", rest="")
    return filled.encode()


def waiting_page() -> bytes:
    """Return a page that loads the requested address as soon as its backend is ready."""
    text = "This takes a moment. The page opens by itself when it is ready."
    return _PAGE.format(
        title="Starting…",
        text=text,
        head=_WAITING_HEAD,
        attributes=' role="status" aria-busy="true"',
        rest=_WAITING_SCRIPT,
    ).encode()
