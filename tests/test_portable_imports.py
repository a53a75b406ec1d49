"""The package can be imported where Python lacks the modules and names that only POSIX systems have."""

import os
import subprocess
import sys

POSIX_ONLY = ["crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "pty", "pwd", "readline", "resource", "spwd"]
POSIX_ONLY += ["syslog", "termios", "tty"]

# Imports all modules; those that need a library which is not installed are left out.
IMPORT_ALL = """
import importlib, os, pkgutil, signal, sys

import tensorflow  # Before anything is taken away: it is TensorFlow's own affair what it needs.

for name in sys.argv[1].split(","):
    sys.modules[name] = None
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name in ("fork", "getuid", "geteuid", "killpg", "sched_getaffinity", "setsid", "statvfs", "uname"):
    delattr(os, name)

import deeplab2_kmax

imported = 0
for module in pkgutil.walk_packages(deeplab2_kmax.__path__, "deeplab2_kmax."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        imported += 1
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in ("deeplab2_kmax", *sys.argv[1].split(",")):
            raise
print(imported)
"""


def test_all_modules_are_imported_without_what_only_posix_has():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, ",".join(POSIX_ONLY)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 200
