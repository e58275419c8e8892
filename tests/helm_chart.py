"""What Helm makes of deploy/helm/tallygate, kept for machines that have no Helm.

``python -m tests.helm_chart`` renders it anew, with the ``helm`` that is found: after each change
of the chart.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/helm/tallygate"
KEPT = ROOT / "tests/fixtures/helm"
CASES: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "everything": ("--values", str(KEPT / "everything.values.yaml")),
}
KUBERNETES = ("--kube-version", "1.30.0")


def helm() -> str | None:
    """Find Helm."""
    return shutil.which("helm")


def digest() -> str:
    """Say which chart, and which values, a rendering is of."""
    said = hashlib.sha256()
    for file in (*sorted(CHART.rglob("*")), *sorted(KEPT.glob("*.values.yaml"))):
        if file.is_file():
            said.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return said.hexdigest()


def render(*options: str) -> subprocess.CompletedProcess[str]:
    """Let Helm make manifests, or refuse to."""
    command = (helm() or "helm", "template", "release", str(CHART), *KUBERNETES, *options)
    return subprocess.run(command, check=False, capture_output=True, text=True)


def kept(case: str) -> tuple[str, str]:
    """Give the digest and the manifests that are kept."""
    first, _, rest = (KEPT / f"{case}.yaml").read_text().partition("\n")
    return first.removeprefix("# "), rest


def _main() -> None:
    for case, options in CASES.items():
        done = render(*options)
        if done.returncode:
            raise SystemExit(done.stderr)
        (KEPT / f"{case}.yaml").write_text(f"# {digest()}\n{done.stdout}")


if __name__ == "__main__":
    _main()
