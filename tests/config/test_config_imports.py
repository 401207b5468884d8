"""Reading a config must be quick: the libraries that take seconds to import stay out of it."""

import subprocess
import sys


def test_reading_recipes_needs_no_torch() -> None:
    program = "import sys, unspoiled.config; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
