"""SIGTERM, which clusters and users send some time before they kill."""

import os
import signal
import threading
from collections.abc import Callable

# No signal has this number.
END = 0


class Termination:
    """Calls a function on a thread of its own when SIGTERM comes, even while the main thread is in a long computation."""

    def __init__(self, act: Callable[[], None]):
        self.act = act
        self.armed = threading.current_thread() is threading.main_thread()
        if not self.armed:
            return
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        # Python writes the signal's number into the pipe at once, but calls handlers between two of its instructions.
        self.earlier = signal.signal(signal.SIGTERM, lambda *_: None)
        self.earlier_fd = signal.set_wakeup_fd(self.write_end)
        self.thread = threading.Thread(target=self._wait, name="termination", daemon=True)
        self.thread.start()

    def _wait(self) -> None:
        while END not in (signals := os.read(self.read_end, 64)):
            if signal.SIGTERM in signals:
                self.act()

    def disarm(self) -> None:
        """Make SIGTERM what it was before."""
        if not self.armed:
            return
        signal.signal(signal.SIGTERM, self.earlier)
        signal.set_wakeup_fd(self.earlier_fd)
        # Closing it is not enough: forked processes have it open, too.
        os.write(self.write_end, bytes([END]))
        self.thread.join()
        os.close(self.write_end)
        os.close(self.read_end)
