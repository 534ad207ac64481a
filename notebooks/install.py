"""Install labkit from the clone that this file lies in. The first cell of a notebook runs it where labkit is missing.

Made for machines that come with packages of their own, such as Colab: what fits stays as it is (Colab's torch knows its
GPU), and the pins of constraints.txt are not asked. On your own machine `make lab` does it all.
"""

import importlib
import subprocess
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
EXTRAS = "text,video,peers"  # what the notebooks use


def install() -> None:
    """Install, and make the kernel that asked find it too.

    Raises:
        RuntimeError: pip failed; what it said stands above.
    """
    print("Installing labkit from its clone: a minute or two.")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command, "--editable", f"{CLONE}[{EXTRAS}]"]).returncode:
        raise RuntimeError("pip could not install labkit; what it says stands above this line.")
    sys.path.insert(0, str(CLONE))  # only kernels that start later look where pip has written
    importlib.invalidate_caches()


if __name__ == "__main__":
    install()
