"""Confines the worker process, which decodes untrusted media, as far as the system allows.

On Linux, two kernel features are combined, because neither is enough:

* Landlock (Linux 5.13 and later) allows reading Python, its libraries and the recording, and writing to the output folders.
  It does not restrict processes, or changes of the modes, owners and times of files.
* A seccomp filter rejects system calls for these changes, for networking, for starting processes, and for access to other processes.
  It is a deny-list: an allow-list would break with each new version of the C library, numpy or FFmpeg.

Both apply to the calling thread and the threads that it starts later, and cannot be undone; so ``confine`` must run before other
threads exist. Features that the kernel or the container lacks are skipped. On other systems, only the resource limits of ``worker``
apply.

The few system calls are made with ``ctypes``, because the available packages are unmaintained or need a system library
(``landlock`` is a pre-release from 2025; ``pyseccomp`` dates from 2021 and needs libseccomp).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SET_DUMPABLE, _SET_SECCOMP, _NO_NEW_PRIVILEGES = 4, 22, 38  # options of prctl
_FILTER_MODE = 2  # of seccomp
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls of Landlock, the same on all architectures
_GET_VERSION, _PATH_BENEATH = 1, 1  # a flag of the first, and a type of rule of the second

# The access rights of Landlock (linux/landlock.h), by the first ABI version that supports them.
_WRITE, _READ, _LIST, _REMOVE, _MAKE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
_TRUNCATE = 1 << 14
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
_TCP = {4: 0b11}  # bind, connect
_SCOPES = {6: 0b11}  # abstract sockets, signals to other processes

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/urandom", "/proc/self/status", "/sys/devices/system/cpu")
_SYSTEM = [Path(place) for place in (*_LIBRARIES, *_DEVICES)]


def hide_memory() -> None:
    """Keep other processes of the same user from reading this one's memory and environment (Linux)."""
    if sys.platform == "linux":
        _libc().prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def confine(readable: Iterable[Path], writable: Iterable[Path]) -> list[str]:
    """Confine this thread, and the threads that it starts, for good.

    Args:
        readable: Files that may be read, in addition to Python and its libraries.
        writable: Folders in which files may be created, replaced and deleted.

    Returns:
        The restrictions in force: ``files`` (Landlock), ``calls`` (seccomp).
    """
    if sys.platform != "linux":
        return []
    if _libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return []
    files = _confine_files(readable, writable)
    return [*["files"] * files, *["calls"] * _confine_calls()]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


# -- files ------------------------------------------------------------------------------------------------------------


def _confine_files(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    call = _libc().syscall
    version = call(_CREATE_RULESET, None, 0, _GET_VERSION)
    if version < 1:
        return False
    files, tcp, scopes = (
        sum(bits for since, bits in known.items() if since <= version) for known in (_FILES, _TCP, _SCOPES)
    )
    # Kernels reject a structure that is longer than the one they know.
    handled = struct.pack("QQQ", files, tcp, scopes)[: 24 if scopes else 16 if tcp else 8]
    ruleset = call(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*_SYSTEM, *_python_folders(), *readable):
            _allow(ruleset, path, (_READ | _LIST) & files)
        for path in writable:
            _allow(ruleset, path, (_READ | _LIST | _WRITE | _REMOVE | _MAKE | _TRUNCATE) & files)
        return bool(call(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _python_folders() -> set[Path]:
    """Return the folders of Python, this package and everything they import."""
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]
    return {Path(__file__).parents[1], *(Path(place) for place in places if place)}


def _allow(ruleset: int, path: Path, access: int) -> None:
    """Allow access to a file, or to a folder and everything in it, if it exists."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not path.is_dir():
                access &= _READ | _WRITE | _TRUNCATE
            rule = struct.pack("=Qi", access, descriptor)
            _libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)


# -- system calls -----------------------------------------------------------------------------------------------------

# The AUDIT_ARCH_ constant of each supported machine, and its column in the tables below.
_MACHINES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
# The numbers of the rejected calls on x86_64 and on aarch64, which lacks some of them.
_REJECTED = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "open_by_handle_at": (304, 265),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "personality": (135, 92),
    "fsopen": (430, 430), "fspick": (433, 433), "fsmount": (432, 432), "open_tree": (428, 428), "move_mount": (429, 429),
    # Modes, owners, times and attributes of files, which Landlock does not cover.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # Other processes of the user.
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "kcmp": (312, 272), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    # Privileges of root, which engines in containers often have.
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "syslog": (103, 116), "quotactl": (179, 60), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "iopl": (172, None), "ioperm": (173, None),
}  # fmt: skip
_CLONE, _CLONE3, _TGKILL, _PRLIMIT = (56, 220), 435, (234, 131), (302, 261)
_CLONE_THREAD = 0x10000
_ALLOW, _REJECT = 0x7FFF_0000, 0x0005_0000 | 1  # EPERM
_MISSING = 0x0005_0000 | 38  # ENOSYS: the C library then falls back to clone, whose flags a filter can read

# Classic BPF. ``_LOAD`` loads a word of the call; ``_EQUAL``, ``_AT_LEAST`` and ``_HAS_BIT`` compare it and skip instructions.
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets of words in the call: the argument is the first one
_Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if the comparison is true, or false, and operand."""


def _confine_calls() -> bool:
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    program = b"".join(struct.pack("HBBI", *line) for line in _program(*_MACHINES[platform.machine()]))
    code = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(_libc().prctl(_SET_SECCOMP, _FILTER_MODE, filter_, 0, 0) == 0)


def _program(architecture: int, column: int) -> list[_Instruction]:
    """Assemble the filter: reject the calls in ``_REJECTED`` and all calls of other architectures, and allow the rest."""
    lines: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _REJECT),  # other architectures have other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, 0x4000_0000),
        (_RETURN, 0, 0, _REJECT),  # and so has x32
    ]
    for numbers in _REJECTED.values():
        number = numbers[column]
        if number is not None:
            lines += _when(number, (_RETURN, 0, 0, _REJECT))
    lines += _when(_CLONE3, (_RETURN, 0, 0, _MISSING))
    # clone may start threads, but no processes.
    lines += _when(_CLONE[column], (_LOAD, 0, 0, _ARGUMENT), (_HAS_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _REJECT))
    # This process may send signals to itself (abort) and change its own limits, but not signal or limit other processes.
    own = os.getpid()
    lines += _when(_TGKILL[column], (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 1, 0, own), (_RETURN, 0, 0, _REJECT))
    lines += _when(_PRLIMIT[column], (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _REJECT))
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _when(number: int, *then: _Instruction) -> list[_Instruction]:
    """Return the instructions that apply ``then`` to one system call; if they do not return, they allow the call."""
    always_returns = then[-1][0] == _RETURN and len(then) == 1
    then = then if always_returns else (*then, (_RETURN, 0, 0, _ALLOW))
    return [(_EQUAL, 0, len(then), number), *then]
