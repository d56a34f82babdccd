"""The frontend image's entry point: `python -m brickyard.frontend.gateway`."""

import os

from .run import main

if __name__ == "__main__":
    # The process has nothing to clean up, and taking an interpreter down takes time.
    os._exit(main())
