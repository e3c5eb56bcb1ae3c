"""What hostile code would try. This file is put into a sandbox and run there; it needs nothing but Python.

Each attempt is a function: it raises `OSError`, which is what should happen, or returns a word that says what it got.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import mmap
import os
import resource
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

NUMBERS: dict[str, int] = {}
GIVEN: dict[str, Any] = {}
OWN = [-1]
"""The descriptor by which an attempt says what it got."""
ATTEMPTS: dict[str, Callable[[], str | None]] = {}


def attempt(function: Callable[[], str | None]) -> Callable[[], str | None]:
    ATTEMPTS[function.__name__] = function
    return function


def call(name: str | int, *args: Any) -> str:
    number = NUMBERS[name] if isinstance(name, str) else name
    words = [arg if isinstance(arg, (bytes, ctypes.Array)) or arg is None else ctypes.c_long(arg) for arg in args]
    result = libc.syscall(ctypes.c_long(number), *words, *[ctypes.c_long(0)] * (6 - len(words)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return "done"


def read(path: str) -> str:
    with open(path, "rb") as file:
        file.read(64)
    return "read"


def write(path: str, flags: int = os.O_WRONLY) -> str:
    os.write(os.open(path, flags, 0o600), b"x")
    return "written"


# ---- files of this machine


@attempt
def read_shadow() -> str:
    return read("/etc/shadow")


@attempt
def read_a_file_that_everyone_may_read() -> str:
    return read(GIVEN["canary"])


@attempt
def follow_a_link_out() -> str:
    os.symlink(GIVEN["canary"], "link")
    return read("link")


@attempt
def hard_link_a_file_from_outside() -> str:
    os.link(GIVEN["canary"], "hard")
    return "linked"


@attempt
def climb_out_by_dots() -> str:
    return read("../" * 30 + GIVEN["canary"].lstrip("/"))


@attempt
def list_home() -> str:
    return str(len(os.listdir("/home"))) and "listed"


@attempt
def read_cloud_credentials() -> str:
    return read(GIVEN["home"] + "/.aws/credentials")


@attempt
def read_the_key_of_flowkit() -> str:
    return read(GIVEN["key"])


@attempt
def read_the_work_of_another_program() -> str:
    return ",".join(os.listdir(GIVEN["other_work"]))


@attempt
def read_the_kernel_log() -> str:
    return read("/dev/kmsg")


@attempt
def read_physical_memory() -> str:
    return read("/dev/mem")


@attempt
def read_a_disk() -> str:
    return read(GIVEN["disk"])


@attempt
def write_to_usr() -> str:
    return write("/usr/flowkit-was-here", os.O_WRONLY | os.O_CREAT)


@attempt
def overwrite_the_interpreter() -> str:
    return write(os.path.realpath(sys.executable))


@attempt
def poison_site_packages() -> str:
    import site

    return write(site.getsitepackages()[0] + "/sitecustomize.py", os.O_WRONLY | os.O_CREAT)


@attempt
def poison_the_loader() -> str:
    return write("/etc/ld.so.preload", os.O_WRONLY | os.O_CREAT)


@attempt
def overwrite_what_is_readable() -> str:
    return write(GIVEN["readable"] + "/given.txt")


@attempt
def add_to_what_is_readable() -> str:
    return write(GIVEN["readable"] + "/new.txt", os.O_WRONLY | os.O_CREAT)


@attempt
def write_to_the_root() -> str:
    return write("/new", os.O_WRONLY | os.O_CREAT)


@attempt
def read_shared_memory_of_others() -> str:
    return read(GIVEN["shared"])


@attempt
def make_a_device() -> str:
    os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
    return "made"


@attempt
def make_a_device_with_characters() -> str:
    os.mknod("mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "made"


# ---- other processes


@attempt
def read_the_worker_s_environment() -> str:
    return read(f"/proc/{GIVEN['worker']}/environ")


@attempt
def read_the_worker_s_memory() -> str:
    return read(f"/proc/{GIVEN['worker']}/mem")


@attempt
def list_the_worker_s_descriptors() -> str:
    return str(os.listdir(f"/proc/{GIVEN['worker']}/fd"))


@attempt
def enter_the_worker_s_root() -> str:
    return str(os.listdir(f"/proc/{GIVEN['worker']}/root/"))


@attempt
def enter_the_worker_s_folder() -> str:
    return str(os.listdir(f"/proc/{GIVEN['worker']}/cwd/"))


@attempt
def read_the_environment_of_process_1() -> str:
    return read("/proc/1/environ")


@attempt
def read_the_memory_of_process_1() -> str:
    return read("/proc/1/mem")


@attempt
def take_a_descriptor_of_process_1() -> str:
    return read("/proc/1/fd/0")


@attempt
def enter_the_root_of_process_1() -> str:
    return str(os.listdir("/proc/1/root/"))


@attempt
def signal_the_worker() -> str:
    os.kill(GIVEN["worker"], 0)
    return "may"


@attempt
def signal_another_program() -> str:
    os.kill(GIVEN["other_pid"], 0)
    return "may"


@attempt
def trace_the_parent() -> str:
    return call("ptrace", 16, os.getppid(), 0, 0)  # PTRACE_ATTACH


@attempt
def be_traced() -> str:
    return call("ptrace", 0, 0, 0, 0)


@attempt
def read_the_parent_by_process_vm() -> str:
    return call("process_vm_readv", os.getppid(), 0, 0, 0, 0, 0)


@attempt
def write_the_parent_by_process_vm() -> str:
    return call("process_vm_writev", os.getppid(), 0, 0, 0, 0, 0)


@attempt
def take_a_descriptor_by_pidfd() -> str:
    return call("pidfd_getfd", os.pidfd_open(os.getpid()), 0, 0)


@attempt
def compare_with_the_parent() -> str:
    return call("kcmp", os.getpid(), os.getppid(), 0, 0, 0)


@attempt
def find_descriptors_that_were_left_open() -> str:
    left = []
    for number in range(4, 256):
        try:
            os.fstat(number)
        except OSError:
            continue
        if number != OWN[0]:
            left.append(number)
    return ",".join(map(str, left)) or "none"


@attempt
def find_the_worker_s_variables() -> str:
    return "found" if GIVEN["secret"] in str(dict(os.environ)) else "none"


@attempt
def find_secrets_in_all_environments() -> str:
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if GIVEN["secret"].encode() in file.read():
                    return "found"
        except OSError:
            continue
    return "none"


# ---- the root, and namespaces


@attempt
def mount_something() -> str:
    return call("mount", b"x", b"/flowkit-work", b"tmpfs", 0, b"")


@attempt
def make_the_root_writable() -> str:
    return call("mount", b"", b"/", None, 32 | 4096, None)  # MS_REMOUNT | MS_BIND


@attempt
def unmount_proc() -> str:
    return call("umount2", b"/proc", 2)


@attempt
def change_the_root() -> str:
    return call("chroot", b".")


@attempt
def pivot_the_root() -> str:
    return call("pivot_root", b".", b".")


@attempt
def open_a_file_system() -> str:
    return call("fsopen", b"tmpfs", 0)


@attempt
def clone_a_mount() -> str:
    return call("open_tree", -100, b"/", 1)


@attempt
def move_a_mount() -> str:
    return call("move_mount", -100, b"/", -100, b"/flowkit-work", 0)


@attempt
def change_mount_attributes() -> str:
    return call("mount_setattr", -100, b"/", 0, b"\0" * 32, 32)


@attempt
def enter_a_user_namespace_of_one_s_own() -> str:
    return call("unshare", 0x10000000)


@attempt
def enter_a_mount_namespace_of_one_s_own() -> str:
    return call("unshare", 0x00020000)


@attempt
def enter_a_network_namespace_of_one_s_own() -> str:
    return call("unshare", 0x40000000)


@attempt
def fork_into_a_user_namespace() -> str:
    return _clone(0x10000000)


@attempt
def fork_into_a_process_namespace() -> str:
    return _clone(0x20000000)


@attempt
def fork_a_sibling() -> str:
    return _clone(0x8000)


def _clone(flags: int) -> str:
    number = NUMBERS["clone"]
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(flags | 17), *[ctypes.c_long(0)] * 4)
    if result == 0:
        os._exit(0)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return "forked"


@attempt
def fork_by_clone3() -> str:
    return call("clone3", struct.pack("=11Q", 0x10000000, *[0] * 10), 88)


@attempt
def enter_a_namespace_of_another() -> str:
    return call("setns", 0, 0)


# ---- the kernel


@attempt
def load_a_bpf_program() -> str:
    return call("bpf", 0, b"\0" * 128, 128)


@attempt
def watch_performance() -> str:
    return call("perf_event_open", b"\0" * 128, 0, -1, -1, 0)


@attempt
def handle_page_faults() -> str:
    return call("userfaultfd", 1)


@attempt
def set_up_io_uring() -> str:
    return call("io_uring_setup", 8, b"\0" * 128)


@attempt
def use_a_keyring() -> str:
    return call("keyctl", 0, -3, 1)


@attempt
def add_a_key() -> str:
    return call("add_key", b"user", b"x", b"y", 1, -3)


@attempt
def request_a_key() -> str:
    return call("request_key", b"user", b"x", None, -3)


@attempt
def load_another_kernel() -> str:
    return call("kexec_load", 0, 0, 0, 0)


@attempt
def load_another_kernel_from_a_file() -> str:
    return call("kexec_file_load", -1, -1, 0, 0, 0)


@attempt
def load_a_module() -> str:
    return call("init_module", b"", 0, b"")


@attempt
def load_a_module_from_a_file() -> str:
    return call("finit_module", 0, b"", 0)


@attempt
def remove_a_module() -> str:
    return call("delete_module", b"x", 0)


@attempt
def reboot() -> str:
    return call("reboot", 0xFEE1DEAD - (1 << 32), 672274793, 0, None)


@attempt
def turn_swap_on() -> str:
    return call("swapon", b"x", 0)


@attempt
def set_the_clock() -> str:
    return call("clock_settime", 0, struct.pack("=qq", 0, 0))


@attempt
def adjust_the_clock() -> str:
    return call("clock_adjtime", 0, b"\0" * 256)


@attempt
def set_the_time_of_day() -> str:
    return call("settimeofday", struct.pack("=qq", 0, 0), 0)


@attempt
def rename_the_machine() -> str:
    return call("sethostname", b"x", 1)


@attempt
def account_for_all_processes() -> str:
    return call("acct", b"x")


@attempt
def set_quotas() -> str:
    return call("quotactl", 0x800002 << 8, b"/dev/vda", 0, 0)


@attempt
def open_a_file_by_its_handle() -> str:
    return call("open_by_handle_at", -100, b"\0" * 32, 0)


@attempt
def get_a_file_s_handle() -> str:
    return call("name_to_handle_at", -100, b".", struct.pack("=Ii", 0, 0), b"\0" * 4, 0)


@attempt
def watch_whole_file_systems() -> str:
    return call("fanotify_init", 0, 0)


@attempt
def read_the_log_by_a_call() -> str:
    return call("syslog", 3, b"\0" * 64, 64)


@attempt
def turn_off_address_randomisation() -> str:
    return call("personality", 0x0040000)


@attempt
def hide_memory() -> str:
    return call("memfd_secret", 0)


@attempt
def move_pages_of_others() -> str:
    return call("move_pages", os.getppid(), 0, 0, 0, 0, 0)


@attempt
def install_a_filter_of_one_s_own() -> str:
    return call("seccomp", 1, 0, 0)


@attempt
def make_a_call_that_is_not_known_yet() -> str:
    return call(500)


@attempt
def make_a_call_by_the_x32_numbers() -> str:
    return call(0x40000000 | 39)


@attempt
def make_a_call_as_a_32_bit_program() -> str:
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return f"pid {ctypes.CFUNCTYPE(ctypes.c_int)(address)()}"


@attempt
def type_into_the_terminal() -> str:
    return call("ioctl", 0, 0x5412, b"x")


@attempt
def type_into_the_terminal_with_high_bits() -> str:
    return call("ioctl", 0, 0x5412 | 1 << 32, b"x")


@attempt
def reach_the_machine_s_ports() -> str:
    return call("iopl", 3)


# ---- privileges


@attempt
def become_root() -> str:
    os.setuid(0)
    return "root"


@attempt
def become_root_by_a_program() -> str:
    with open("/proc/self/status") as file:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    kept = int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16) | int(status["CapAmb"], 16)
    return "none" if status["NoNewPrivs"] == "1" and not kept else f"{status['NoNewPrivs']} {kept:x}"


@attempt
def leave_groups() -> str:
    os.setgroups([])
    return "left"


@attempt
def take_capabilities() -> str:
    header = struct.pack("=Ii", 0x20080522, 0)
    if libc.capset(header, struct.pack("=6I", *[0xFFFFFFFF] * 6)) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "taken"


@attempt
def raise_a_limit() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
    except ValueError as error:
        raise OSError(errno.EPERM, str(error)) from None
    return "raised"


@attempt
def be_first_on_the_processor() -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    return "first"


@attempt
def be_served_in_real_time() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    return "served"


@attempt
def be_spared_when_memory_is_short() -> str:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "spared"


@attempt
def change_a_setting_of_the_kernel() -> str:
    return write("/proc/sys/kernel/core_pattern")


@attempt
def press_the_magic_key() -> str:
    return write("/proc/sysrq-trigger")


# ---- sockets


def _socket(family: int, kind: int, protocol: int = 0) -> str:
    socket.socket(family, kind, protocol).close()
    return "opened"


@attempt
def open_a_stream_to_the_network() -> str:
    return _socket(socket.AF_INET, socket.SOCK_STREAM)


@attempt
def open_a_stream_to_the_newer_network() -> str:
    return _socket(socket.AF_INET6, socket.SOCK_STREAM)


@attempt
def send_names_to_a_name_server() -> str:
    return _socket(socket.AF_INET, socket.SOCK_DGRAM)


@attempt
def make_packets_of_one_s_own() -> str:
    return _socket(socket.AF_INET, socket.SOCK_RAW, 1)


@attempt
def listen_to_the_wire() -> str:
    return _socket(17, socket.SOCK_RAW)


@attempt
def talk_to_the_kernel_s_network() -> str:
    return _socket(16, socket.SOCK_RAW)


@attempt
def reach_the_machine_below() -> str:
    return _socket(40, socket.SOCK_STREAM)


@attempt
def use_the_kernel_s_ciphers() -> str:
    return _socket(38, socket.SOCK_SEQPACKET)


@attempt
def open_a_unix_socket() -> str:
    return _socket(socket.AF_UNIX, socket.SOCK_STREAM)


@attempt
def connect_to_an_abstract_socket() -> str:
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect("\0" + GIVEN["abstract"])
    return "connected"


@attempt
def pair_sockets_of_the_network() -> str:
    ends = (ctypes.c_int * 2)()
    return call("socketpair", socket.AF_INET, socket.SOCK_STREAM, 0, ends)


@attempt
def pair_unix_sockets() -> str:
    for end in socket.socketpair():
        end.close()
    return "paired"


@attempt
def share_memory_with_others() -> str:
    return call("shmget", GIVEN["shm_key"], 0, 0)


@attempt
def share_a_queue_with_others() -> str:
    return call("mq_open", b"flowkit-test", 0, 0, None)


# ---- floods


@attempt
def fill_the_disk() -> str:
    return _fill("full", 1 << 20, 1024)


@attempt
def fill_the_disk_with_many_files() -> str:
    for number in range(1024):
        _fill(f"part-{number}", 1 << 20, 1)
    return "filled"


@attempt
def fill_shared_memory() -> str:
    return _fill("/dev/shm/full", 1 << 20, 1024)


@attempt
def make_a_sparse_giant() -> str:
    with open("giant", "wb") as file:
        file.truncate(1 << 40)
    return "made"


@attempt
def use_up_the_inodes() -> str:
    os.mkdir("many")
    for number in range(200_000):
        os.close(os.open(f"many/{number}", os.O_WRONLY | os.O_CREAT))
    return "used"


@attempt
def use_up_the_descriptors() -> str:
    held = []
    for _ in range(100_000):
        held.append(os.open("/dev/null", os.O_RDONLY))
    return "used"


@attempt
def use_up_the_threads() -> str:
    wait = threading.Event()
    try:
        for _ in range(5_000):
            threading.Thread(target=wait.wait, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
    return "used"


@attempt
def lock_all_memory() -> str:
    address = ctypes.addressof(ctypes.c_char.from_buffer(mmap.mmap(-1, 32 << 20)))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(32 << 20)) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "locked"


def _fill(path: str, chunk: int, times: int) -> str:
    with open(path, "wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * chunk)
    return "filled"


# ---- how they are run


def outcome(name: str) -> str:
    """The attempt in a process of its own: an errno's name, a signal's, or what it got."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        OWN[0] = writer
        try:
            said = ATTEMPTS[name]() or "done"
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, repr(error))
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return said or f"signal {-code}"


def main() -> None:
    with open("given.json") as file:
        GIVEN.update(json.load(file))
    NUMBERS.update(GIVEN["numbers"])
    for name in GIVEN["attempts"]:
        print(json.dumps([name, outcome(name)]), flush=True)
        for left in ("full", "giant", *(f"part-{number}" for number in range(70))):
            if os.path.exists(left):
                os.unlink(left)


if __name__ == "__main__":
    main()
