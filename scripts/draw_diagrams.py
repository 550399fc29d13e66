"""Draw the diagrams of the documentation with Chromium and Mermaid: `make diagrams`.

A diagram is a block of the language "mermaid" in a page. Its drawing is `docs/assets/diagrams/HASH.svg`, named by the
hash of the block, and `generated_pages.diagram` puts it into the page. So a reader's browser loads nothing for it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "assets" / "diagrams"
# npm checks what it has downloaded against the registry's hash; ours says that it is what was there before.
MERMAID = "mermaid@11.17.2"
MERMAID_SHA256 = "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8"
# The theme has these for both of its schemes.
STYLE = """
.node rect, .node path, .stateGroup rect { fill: var(--md-mermaid-node-bg-color);
  stroke: var(--md-mermaid-node-fg-color); }
.label, .nodeLabel, .nodeLabel p, .edgeLabel, .edgeLabel p, .label text, text { color: var(--md-mermaid-label-fg-color);
  fill: var(--md-mermaid-label-fg-color); font-family: var(--md-mermaid-font-family); }
.edgeLabel, .edgeLabel rect, .edgeLabel p, .labelBkg { background-color: var(--md-mermaid-label-bg-color);
  fill: var(--md-mermaid-label-bg-color); }
.transition, .edgePath .path, .flowchart-link { stroke: var(--md-mermaid-edge-color); }
marker, marker path, .node circle.state-start, .state-end { fill: var(--md-mermaid-edge-color) !important;
  stroke: var(--md-mermaid-edge-color) !important; }
"""


def sources() -> dict[str, str]:
    """Return each diagram of the pages by its hash."""
    pages = (ROOT / "docs").rglob("*.md")
    texts = (text for page in pages for text in re.findall(r"^```mermaid\n(.*?)\n```$", page.read_text(), re.M | re.S))
    return {hashlib.sha256(text.encode()).hexdigest()[:16]: text for text in texts}


def mermaid(folder: Path) -> Path:
    """Download Mermaid's script."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), MERMAID]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    script = folder / "mermaid.min.js"
    with tarfile.open(archive) as package, script.open("wb") as target:
        member = package.extractfile("package/dist/mermaid.min.js")
        assert member is not None
        target.write(member.read())
    if hashlib.sha256(script.read_bytes()).hexdigest() != MERMAID_SHA256:
        sys.exit(f"{MERMAID} is not the one of before; compare it and change MERMAID_SHA256")
    return script


def main() -> None:
    """Draw what has no drawing, and remove drawings of no diagram."""
    wanted = sources()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for drawing in FOLDER.glob("*.svg"):
        if drawing.stem not in wanted:
            drawing.unlink()
    missing = {name: text for name, text in wanted.items() if not (FOLDER / f"{name}.svg").exists()}
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        script = mermaid(Path(folder))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(path=script)
        # Nothing of the drawing may depend on the time or on chance.
        settings = {"startOnLoad": False, "deterministicIds": True, "themeCSS": STYLE, "theme": "neutral"}
        page.evaluate("settings => mermaid.initialize(settings)", settings)
        for name, text in missing.items():
            drawing = page.evaluate(
                "async ([name, text]) => (await mermaid.render(`d${name}`, text)).svg", [name, text]
            )
            (FOLDER / f"{name}.svg").write_text(f"{drawing}\n")
        browser.close()


if __name__ == "__main__":
    main()
